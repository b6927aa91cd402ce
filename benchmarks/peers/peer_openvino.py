"""OpenVINO GenAI as a peer of compare_peers.py: it reads the GGUF file itself. Modes: plain, and prompt look-up."""
import numpy
import openvino
import openvino_genai

import peer


class Peer:
    def __init__(self, job):
        options = {"INFERENCE_NUM_THREADS": job["threads"]}
        self.settings = {}
        if job["mode"] == "lookup":
            options["prompt_lookup"] = True
            self.settings = {"num_assistant_tokens": 5, "max_ngram_size": 3}
        self.pipeline = openvino_genai.LLMPipeline(job["model"], "CPU", **options)
        self.tokenizer = self.pipeline.get_tokenizer()
        self.ends = job["end_ids"]


def answer(it, ids, most):
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = most
    config.do_sample = False
    config.eos_token_id = it.ends[0]
    config.stop_token_ids = set(it.ends)
    for name, value in it.settings.items():
        setattr(config, name, value)
    tokens = openvino.Tensor(numpy.array([ids], dtype=numpy.int64))
    mask = openvino.Tensor(numpy.ones((1, len(ids)), dtype=numpy.int64))
    begin = peer.now()
    result = it.pipeline.generate(openvino_genai.TokenizedInputs(tokens, mask), config)
    seconds = peer.now() - begin
    new = list(result.tokens[0])
    first_s = result.perf_metrics.get_ttft().mean * 1e-3
    text = it.tokenizer.decode([token for token in new if token not in it.ends])
    return {"text": text, "tokens": len(new), "first_s": first_s, "decode_tokens": len(new) - 1,
            "decode_s": seconds - first_s}


peer.run(Peer, answer)
