"""The server of the program with OpenAI's own client: TEST.py PROGRAM TINY_GGUF. Skipped (status 77) without `openai`."""
import json
import re
import signal
import subprocess
import sys
import unittest

try:
    import openai
except ImportError:
    print("SKIPPED: the Python package `openai` is not installed", file=sys.stderr)
    sys.exit(77)

PROGRAM, MODEL = sys.argv[1:3]
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "count to three"}], "max_tokens": 24, "seed": 3}
SCHEMA = {"type": "object", "properties": {"word": {"enum": ["red", "green"]}, "count": {"type": "integer"}},
          "required": ["word", "count"]}


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.process = subprocess.Popen([PROGRAM, "serve", "-m", MODEL, "--port", "0", "--name", "tiny", "--template",
                                        "chatml", "--drafter", "ngram", "--nodes", "4", "--threads", "1"], stderr=subprocess.PIPE, text=True)
        port = next(found[1] for found in map(re.compile(r"http://127\.0\.0\.1:(\d+)").search, cls.process.stderr) if found)
        cls.url = f"http://127.0.0.1:{port}/v1"
        cls.client = openai.OpenAI(base_url=cls.url, api_key="none", max_retries=0, timeout=120)

    @classmethod
    def tearDownClass(cls):
        cls.process.send_signal(signal.SIGINT)
        status = cls.process.wait(timeout=60)
        cls.process.stderr.close()
        cls.client.close()
        assert status == 0, status

    def chat(self, **more):
        return self.client.chat.completions.create(**ASK, **more)

    def test_what_the_page_shows(self):
        url, model = self.url, "tiny"
        # [page]
        with openai.OpenAI(base_url=url, api_key="none") as client:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Why is the sky blue?"}], max_tokens=64)
        print(answer.choices[0].message.content)
        # [page]
        self.assertGreater(answer.usage.completion_tokens, 0)

    def test_chat_streamed_is_chat_whole(self):
        whole = self.chat(n=2, temperature=0.8)
        texts = ["", ""]
        for piece in self.chat(n=2, temperature=0.8, stream=True):
            for choice in piece.choices:
                texts[choice.index] += choice.delta.content or ""
        self.assertEqual(texts, [choice.message.content for choice in whole.choices])
        self.assertGreater(whole.usage.completion_tokens_details.accepted_prediction_tokens
                           + whole.usage.completion_tokens_details.rejected_prediction_tokens, 0)

    def test_logprobs_of_a_chat(self):
        choice = self.chat(logprobs=True, top_logprobs=3).choices[0]
        content = choice.logprobs.content
        self.assertEqual(b"".join(bytes(token.bytes or []) for token in content).decode(errors="replace"), choice.message.content)
        for token in content:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.logprob, token.top_logprobs[0].logprob)  # greedy
            self.assertLessEqual(token.logprob, 0)
        streamed = [token for piece in self.chat(logprobs=True, top_logprobs=3, stream=True) for choice in piece.choices
                    if choice.logprobs for token in choice.logprobs.content]
        self.assertEqual(streamed, content)

    def test_logprobs_of_a_text(self):
        choice = self.client.completions.create(model="tiny", prompt="one two", max_tokens=9, logprobs=2).choices[0]
        told = choice.logprobs
        self.assertEqual(told.text_offset[0], 0)
        self.assertEqual(len(told.tokens), len(told.token_logprobs))
        self.assertEqual(len(told.tokens), len(told.top_logprobs))
        for token, logprob, best in zip(told.tokens, told.token_logprobs, told.top_logprobs):
            self.assertEqual(best[token], logprob)

    def test_json_of_a_schema(self):
        form = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}
        answer = self.client.chat.completions.create(**{**ASK, "max_tokens": 200}, response_format=form, temperature=1, n=4)
        for choice in answer.choices:
            value = json.loads(choice.message.content)
            self.assertEqual(list(value), ["word", "count"])
            self.assertIsInstance(value["count"], int)
        with self.assertRaises(openai.BadRequestError) as refused:
            self.chat(response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": {"pattern": "x"}}})
        self.assertEqual(refused.exception.param, "response_format")

    def test_penalties_and_bias_are_heard(self):
        plain = self.chat(logprobs=True).choices[0]
        self.assertNotEqual(self.chat(frequency_penalty=2, presence_penalty=2).choices[0].message.content,
                            plain.message.content)
        with self.assertRaises(openai.BadRequestError):
            self.chat(logit_bias={"1000000": 5})

    def test_a_prompt_that_was_read_is_not_read_again(self):
        ask = {**ASK, "messages": [{"role": "user", "content": "a long question of many words that is asked twice"}]}
        first, second = (self.client.chat.completions.create(**ask) for _ in range(2))
        self.assertEqual(first.choices[0].message.content, second.choices[0].message.content)
        self.assertEqual(second.usage.prompt_tokens_details.cached_tokens, second.usage.prompt_tokens - 1)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
