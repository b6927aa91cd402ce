"""llama.cpp, through the wheel xllamacpp, as a peer of compare_peers.py. Modes: plain, and each kind of speculation
without a second model that the wheel offers (ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod, ngram-cache)."""
import sys

import xllamacpp

import peer


def load(job):
    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.n_ctx = job["context"]
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = job["threads"]
    params.cpuparams_batch.n_threads = job["threads"]
    params.cache_prompt = False  # every prompt is read in full, as by the others
    params.cache_ram_mib = 0
    params.verbosity = 0
    params.port = 0
    if job["mode"] != "plain":
        name = "COMMON_SPECULATIVE_TYPE_" + job["mode"].replace("-", "_").upper()
        params.speculative.types = [getattr(xllamacpp.common_speculative_type, name)]
    print(xllamacpp.get_system_info(), file=sys.stderr)
    return xllamacpp.Server(params)


def answer(server, ids, most):
    begin = peer.now()
    result = server.handle_completions({"prompt": ids, "n_predict": most, "max_tokens": most, "temperature": 0,
                                        "cache_prompt": False, "stream": False})
    seconds = peer.now() - begin
    if "choices" not in result:
        raise RuntimeError(f"llama.cpp answered {result}")
    timings = result["timings"]
    decode_s = timings["predicted_ms"] * 1e-3  # its clock starts at the first token
    return {"text": result["choices"][0]["text"], "tokens": timings["predicted_n"], "first_s": seconds - decode_s,
            "decode_tokens": timings["predicted_n"] - 1, "decode_s": decode_s}


peer.run(load, answer)
