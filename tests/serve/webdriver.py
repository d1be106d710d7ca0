"""A browser that is driven over W3C WebDriver: chromium by chromedriver, both Debian's. Nothing but Python's own modules."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

# A reference to an element. (WebDriver, 12.1)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# Keys. (WebDriver, 17.4.2)
TAB, ENTER, SPACE, CONTROL, DOWN = "\ue004", "\ue007", " ", "\ue009", "\ue015"


class Browser:
    """A session; it ends with the block that it is made in."""

    def __init__(self, scratch):
        environment = {**os.environ, "HOME": scratch, "TMPDIR": scratch}
        command = ["chromedriver", "--port=0"]
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.at = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}"
                break
        else:
            raise SystemExit("chromedriver does not start")
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"]
        # Its sandbox is not for root.
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        options = {"args": arguments, "binary": "/usr/bin/chromium", "prefs": {"download.default_directory": scratch}}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        self.session = "/session/" + self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.ask("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()

    def ask(self, method, path, body=None):
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.at + self.session + path, data, {"content-type": "application/json"}, method=method)
        try:
            return json.load(urllib.request.urlopen(request, timeout=120))["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path} {body}: {json.load(error)['value']['message']}") from None

    def get(self, url):
        self.ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """What a function with that body returns in the page."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command, **parameters):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def until(self, what, script, *arguments):
        """Waits until the script returns something true, which is given."""
        deadline = time.monotonic() + 60
        while True:
            try:
                found = self.run(script, *arguments)
            except AssertionError:
                found = None  # the page is another by now
            if found:
                return found
            text = "return location.pathname + '\\n' + document.body.innerText"
            assert time.monotonic() < deadline, f"{what}: {self.run(text)}"
            time.sleep(0.05)

    def find(self, selector):
        return self.ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self.ask("POST", f"/element/{self.find(selector)}/click")

    def fill(self, selector, text):
        element = self.find(selector)
        self.ask("POST", f"/element/{element}/clear")
        self.ask("POST", f"/element/{element}/value", {"text": text})

    def keys(self, *keys):
        """Presses keys one after the other; those of a tuple together."""
        actions = []
        for key in keys:
            held = key if isinstance(key, tuple) else (key,)
            actions += [{"type": "keyDown", "value": one} for one in held] + [{"type": "keyUp", "value": one} for one in reversed(held)]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def tab_to(self, selector):
        """Presses Tab until what the selector means has the focus."""
        for _ in range(80):
            if self.run("return document.activeElement.matches(arguments[0])", selector):
                return
            self.keys(TAB)
        raise AssertionError(f"Tab does not lead to {selector}")

    def log(self):
        """What the browser has complained of since."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def width(self, pixels, height=900):
        size = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def scheme(self, name):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path):
        import base64
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", "/screenshot")))
