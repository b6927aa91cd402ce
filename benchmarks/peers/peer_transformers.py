"""transformers as a peer of compare_peers.py: greedy, plain or with prompt look-up, float32 or bfloat16."""
from pathlib import Path

import torch
import transformers

import peer


class Clock(transformers.generation.streamers.BaseStreamer):
    """Notes when the first new token came; the prompt itself is what comes first."""

    def __init__(self):
        self.calls, self.first, self.first_tokens = 0, None, 0

    def put(self, value):
        self.calls += 1
        if self.calls == 2:
            self.first, self.first_tokens = peer.now(), value.numel()

    def end(self):
        pass


class Peer:
    def __init__(self, job):
        torch.set_num_threads(job["threads"])
        path = Path(job["model"])
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["dtype"]]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype).eval()
        # Only to make text of ids; its own splitting of text is not the model's.
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        self.options = {"prompt_lookup_num_tokens": 10} if job["mode"] == "lookup" else {}
        self.ends = job["end_ids"]


def answer(it, ids, most):
    prompt = torch.tensor([ids])
    clock = Clock()
    begin = peer.now()
    with torch.inference_mode():
        output = it.model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=most, do_sample=False,
                                   eos_token_id=it.ends, pad_token_id=it.ends[0], streamer=clock, **it.options)
    end = peer.now()
    new = output[0, len(ids):].tolist()
    text = it.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"text": text, "tokens": len(new), "first_s": clock.first - begin,
            "decode_tokens": len(new) - clock.first_tokens, "decode_s": end - clock.first}


peer.run(Peer, answer)
