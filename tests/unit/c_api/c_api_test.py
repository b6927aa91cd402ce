"""The C interface through ctypes: c_api_test.py LIBRARY HEADER TINY_GGUF

Also that the library shows the functions of its header and nothing else.
"""
import ctypes
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import unittest

LIBRARY, HEADER, MODEL = sys.argv[1:4]
C = ctypes.CDLL(LIBRARY)
SIZE, I64, U64, I32, U32, TEXT, REAL = (ctypes.c_size_t, ctypes.c_int64, ctypes.c_uint64, ctypes.c_int32, ctypes.c_uint32,
                                        ctypes.c_char_p, ctypes.c_double)


def structure(name, fields):
    return type(name, (ctypes.Structure,), {"_fields_": [("size", SIZE), *fields]})


def all_of(names, kind):
    return [(name, kind) for name in names.split()]


EngineOptions = structure("EngineOptions", [*all_of("model drafter drafters chat_template pass_times_file", TEXT),
                                            ("memory", U64), ("nodes", I64), ("threads", I32), ("max_batch", U32),
                                            ("queue", U32), ("kept_bytes", U64)])
GenerationOptions = structure("GenerationOptions", [
    ("max_tokens", I64), *all_of("temperature top_p min_p repetition_penalty", REAL), ("top_k", I64), ("seed", U64),
    ("choice", U64), ("stop", ctypes.POINTER(TEXT)), ("stops", SIZE), ("deadline_ms", I64), ("priority", I32),
    ("has_seed", I32), ("json_schema", TEXT)])
Result = structure("Result", [
    ("text", TEXT), ("text_bytes", SIZE), ("tokens", ctypes.POINTER(I32)), ("token_count", SIZE), ("error", TEXT),
    ("finish", ctypes.c_int), ("seed", U64), *all_of("prompt_tokens drafted accepted rounds", I64),
    *all_of("prefill_seconds decoding_seconds", REAL), ("resumed", I64)])
Stats = structure("Stats", all_of("submitted refused stopped length cancelled deadline failed queued active prompt_tokens "
                                  "tokens rounds drafted accepted", I64))
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), SIZE)
C.outrider_last_error.restype = TEXT
C.outrider_close.argtypes = C.outrider_cancel.argtypes = C.outrider_request_free.argtypes = [ctypes.c_void_p]
C.outrider_wait.argtypes = [ctypes.c_void_p, I64, ctypes.c_void_p]
C.outrider_submit.argtypes = [ctypes.c_void_p, ctypes.c_int, TEXT, SIZE, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
                              ctypes.c_void_p]
C.outrider_save.argtypes = [ctypes.c_void_p, ctypes.c_int, TEXT, SIZE, TEXT, ctypes.POINTER(I64)]
C.outrider_load.argtypes = [ctypes.c_void_p, TEXT, ctypes.POINTER(I64)]
OK, BAD_REQUEST, DAMAGED_FILE, NOT_SUPPORTED, OUT_OF_MEMORY, BUSY, PENDING = 0, 1, 2, 3, 5, 7, 8
STOP, LENGTH, CANCELLED, DEADLINE = range(4)
FOREVER = {"max_tokens": 3000, "stop": [b"\x01 never"]}


class Engine:
    def __init__(self, **fields):
        options = EngineOptions()
        C.outrider_engine_options_init(ctypes.byref(options), SIZE(ctypes.sizeof(options)))
        options.model, options.chat_template, options.threads = MODEL.encode(), b"chatml", 1
        for name, value in fields.items():
            setattr(options, name, value)
        self.handle = ctypes.c_void_p()
        status = C.outrider_open(ctypes.byref(options), ctypes.byref(self.handle))
        if status != OK:
            raise RuntimeError(status, C.outrider_last_error().decode())

    def submit(self, text, callback=None, kind=0, **fields):
        """(status, request)."""
        options = GenerationOptions()
        C.outrider_generation_options_init(ctypes.byref(options), SIZE(ctypes.sizeof(options)))
        stop = fields.pop("stop", [])
        options.stop, options.stops = (TEXT * len(stop))(*stop), len(stop)
        for name, value in fields.items():
            setattr(options, name, value)
        request = ctypes.c_void_p()
        status = C.outrider_submit(self.handle, kind, text.encode(), len(text.encode()), ctypes.byref(options), callback, None,
                                   ctypes.byref(request))
        return status, request

    def stats(self):
        stats = Stats()
        stats.size = ctypes.sizeof(stats)
        assert C.outrider_get_stats(self.handle, ctypes.byref(stats)) == OK
        return stats

    def close(self):
        C.outrider_close(self.handle)


def ended(request, milliseconds=-1):
    """(status, result); the result is read before the request is freed."""
    result = Result()
    result.size = ctypes.sizeof(result)
    return C.outrider_wait(request, milliseconds, ctypes.byref(result)), result


class Library(unittest.TestCase):
    def test_symbols(self):
        listed = subprocess.run(["nm", "-D", "--defined-only", "--format=posix", LIBRARY], capture_output=True, text=True,
                                check=True).stdout
        shown = {line.split()[0].split("@")[0] for line in listed.splitlines() if line.split()[1] != "A"}
        declared = set(re.findall(r"OUTRIDER_C_API[^;(]*?\b(outrider_\w+)\(", pathlib.Path(HEADER).read_text()))
        self.assertEqual(shown, declared)
        self.assertGreater(len(declared), 10)


class Texts(unittest.TestCase):
    def setUp(self):
        self.engine = Engine(drafter=b"ngram", nodes=6)
        self.addCleanup(self.engine.close)

    def text(self, engine, prompt, **fields):
        status, request = engine.submit(prompt, **fields)
        self.assertEqual(status, OK, C.outrider_last_error())
        status, result = ended(request)
        self.assertEqual(status, OK)
        text = result.text
        C.outrider_request_free(request)
        return text

    def test_many_threads_get_the_texts_of_plain_decoding(self):
        plain = Engine(drafter=b"none", nodes=0)
        self.addCleanup(plain.close)
        ask = [dict(prompt=f"count {i}", max_tokens=20, temperature=0.8 * (i % 2), has_seed=1, seed=i) for i in range(8)]
        expected = [self.text(plain, **each) for each in ask]
        wrong = []

        def work(first):
            for i in range(8):
                at = (first + i) % 8
                if self.text(self.engine, **ask[at]) != expected[at]:
                    wrong.append(at)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(self.engine.stats().submitted, 32)

    def test_kinds_of_prompts(self):
        user = self.text(self.engine, "hello", max_tokens=9)
        chat = '{"messages": [{"role": "user", "content": "hello"}]}'
        self.assertEqual(self.text(self.engine, chat, kind=1, max_tokens=9), user)
        self.assertNotEqual(self.text(self.engine, "hello", kind=2, max_tokens=9), user)

    def test_callback(self):
        seen = []

        @Callback
        def append(_, text, size):
            seen.append(text[:size])
            return 0
        status, request = self.engine.submit("hello", append, max_tokens=20)
        self.assertEqual(status, OK)
        _, result = ended(request)
        self.assertEqual(b"".join(seen), result.text)
        C.outrider_request_free(request)

    def test_json_of_a_schema(self):
        schema = b'{"type": "object", "properties": {"a": {"enum": ["x", "yes"]}, "b": {"type": "boolean"}}, "required": ["a", "b"]}'
        for seed in range(4):
            text = self.text(self.engine, "hello", max_tokens=200, temperature=1.0, has_seed=1, seed=seed, json_schema=schema)
            value = json.loads(text)
            self.assertEqual(sorted(value), ["a", "b"])
            self.assertIn(value["a"], ("x", "yes"))
            self.assertIs(type(value["b"]), bool)
        for wrong in (b"{", b'{"patternProperties": {}}'):
            self.assertIn(self.engine.submit("hello", json_schema=wrong)[0], (BAD_REQUEST, NOT_SUPPORTED))
            self.assertIn(b"JSON schema", C.outrider_last_error())

    def test_texts_that_ended_are_kept(self):
        keeps = Engine(drafter=b"ngram", kept_bytes=1 << 24)
        self.addCleanup(keeps.close)
        for engine, kept in ((self.engine, False), (keeps, True)):
            expected = self.text(engine, "count to ten and go on", max_tokens=30)
            status, request = engine.submit("count to ten and go on", max_tokens=30)
            self.assertEqual(status, OK)
            _, result = ended(request)
            self.assertEqual(result.text, expected)
            self.assertEqual(result.resumed > 0, kept)
            C.outrider_request_free(request)

    def test_a_conversation_outlives_its_engine(self):
        talk = [{"role": "user", "content": "hello"}]
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/talk".encode()
            first = Engine(drafter=b"ngram", kept_bytes=1 << 24)
            talk.append({"role": "assistant", "content": self.text(first, json.dumps({"messages": talk}), kind=1, max_tokens=9).decode()})
            chat, saved, loaded = json.dumps({"messages": talk}).encode(), I64(), I64()
            self.assertEqual(C.outrider_save(first.handle, 1, chat, len(chat), file, ctypes.byref(saved)), OK)
            first.close()
            talk.append({"role": "user", "content": "and then?"})
            expected = self.text(self.engine, json.dumps({"messages": talk}), kind=1, max_tokens=9)
            second = Engine(drafter=b"ngram", kept_bytes=1 << 24)
            self.addCleanup(second.close)
            self.assertEqual(C.outrider_load(second.handle, file, ctypes.byref(loaded)), OK)
            self.assertEqual(loaded.value, saved.value)
            status, request = second.submit(json.dumps({"messages": talk}), kind=1, max_tokens=9)
            self.assertEqual(status, OK)
            _, result = ended(request)
            self.assertEqual((result.text, result.resumed), (expected, saved.value))
            C.outrider_request_free(request)
            with open(file, "r+b") as cut:
                cut.truncate(200)
            self.assertEqual(C.outrider_load(second.handle, file, None), DAMAGED_FILE)
            self.assertEqual(C.outrider_load(self.engine.handle, file, None), BAD_REQUEST)
            self.assertIn(b"kept_bytes", C.outrider_last_error())

    def test_cancel_poll_and_deadline(self):
        _, request = self.engine.submit("hello", **FOREVER)
        status, _ = ended(request, 0)
        self.assertIn(status, (PENDING, OK))
        C.outrider_cancel(request)
        status, result = ended(request)
        self.assertEqual(status, OK)
        self.assertIn(result.finish, (CANCELLED, STOP, LENGTH))
        C.outrider_request_free(request)
        _, request = self.engine.submit("hello", deadline_ms=1, **FOREVER)
        self.assertIn(ended(request)[1].finish, (DEADLINE, STOP, LENGTH))
        C.outrider_request_free(request)

    def test_requests_outlive_their_engine(self):
        engine = Engine(drafter=b"none")
        requests = [engine.submit(f"count {i}", **FOREVER)[1] for i in range(4)]
        engine.close()
        for request in requests:
            self.assertEqual(ended(request)[0], OK)
            C.outrider_request_free(request)

    def test_limits(self):
        busy = Engine(drafter=b"none", queue=0)
        self.addCleanup(busy.close)
        self.assertEqual(busy.submit("hello")[0], BUSY)
        self.assertIn(b"wait", C.outrider_last_error())
        with self.assertRaisesRegex(RuntimeError, "memory"):
            Engine(drafter=b"none", memory=1)

    def test_structures_that_were_never_initialised(self):
        request = ctypes.c_void_p()
        for size in (0, 3, 4097, 2**63):
            options = GenerationOptions()
            options.size = size
            status = C.outrider_submit(self.engine.handle, 0, b"hello", 5, ctypes.byref(options), None, None,
                                       ctypes.byref(request))
            self.assertEqual(status, BAD_REQUEST)
            self.assertIn(b"outrider_generation_options", C.outrider_last_error())
            stats = Stats()
            stats.size = size
            self.assertEqual(C.outrider_get_stats(self.engine.handle, ctypes.byref(stats)), BAD_REQUEST)
        _, request = self.engine.submit("hello", max_tokens=2)
        result = Result()
        result.size = 2**40
        self.assertEqual(C.outrider_wait(request, -1, ctypes.byref(result)), BAD_REQUEST)
        C.outrider_request_free(request)

    def test_errors_are_of_their_thread(self):
        self.assertEqual(self.engine.submit("{", kind=1)[0], BAD_REQUEST)
        here, there = C.outrider_last_error(), []
        other = threading.Thread(target=lambda: there.append(C.outrider_last_error()))
        other.start()
        other.join()
        self.assertNotEqual(here, b"")
        self.assertEqual(there, [b""])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], verbosity=2)
