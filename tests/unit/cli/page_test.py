"""The page of `inspect --html` in a browser: TEST.py PROGRAM TINY_GGUF [unittest options]. Skipped (status 77) without Chromium."""
import json
import re
import shutil
import subprocess
import sys

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    print("SKIPPED: there is no Chromium", file=sys.stderr)
    sys.exit(77)

from program_case import MODEL, Case, main, outrider  # noqa: E402


class Page(Case):
    def rendered(self, page, number):
        """The document after its script has run, at this round."""
        done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.path / 'profile'}",
                               "--virtual-time-budget=2000", "--dump-dom", f"file://{page}#{number}"], capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr[-500:])
        return done.stdout.decode()

    def test_every_round_is_drawn(self):
        page = self.path / "rounds.html"
        outrider("inspect", "--model", MODEL, "--drafter", "ngram", "--prompt", "a b a b </script> &amp;", "-n", 16, "--html", page)
        story = json.loads(re.search(r'id="story">(.*?)</script>', page.read_text(encoding="utf-8"))[1])
        rounds = story["rounds"]
        for number in (1, len(rounds)):
            dom, one = self.rendered(page, number), rounds[number - 1]
            self.assertIn(f"round {number} of {len(rounds)}: {one['accepted']} of {len(one['nodes']) - 1} nodes accepted", dom)
            chosen = len(one["emits"]) - one["accepted"]
            self.assertEqual(dom.count("<rect "), len(one["nodes"]) + chosen)
            self.assertEqual(dom.count("<path "), len(one["nodes"]) - 1 + chosen)
            self.assertEqual(len(re.findall(r'title="round \d+: ', dom)), len(rounds))
            self.assertIn(f"verify {1000 * one['seconds']['verify']:.2f} ms", dom)
            self.assertIn("a b a b &lt;/script&gt; &amp;amp;", dom)


main()
