"""A browser without a script: pages by their address, forms by where they are sent."""

import html
import http.cookiejar
import os
import re
import urllib.error
import urllib.parse
import urllib.request

base = os.environ["AWS_ENDPOINT_URL"]


class Browser:
    """Pages by their address, forms by their button; cookies are kept."""

    def __init__(self):
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.page = self.path = ""

    def ask(self, path, data=None, headers={}):
        """Gets a page, or posts fields; its status."""
        body = None if data is None else urllib.parse.urlencode(data).encode()
        request = urllib.request.Request(base + path, body, headers)
        try:
            answer = self.opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        self.page, self.path = answer.read().decode(), answer.geturl()[len(base):]
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, policy
        assert not re.search(r"<script(?! src=\"/console/)|\son\w+=|\sstyle=|<style", self.page), self.page
        return answer.status

    def get(self, path):
        status = self.ask(path)
        assert status == 200, (path, status, self.page)
        return self.page

    def send(self, to, **fields):
        """Posts the page's form of that address as it is filled in, with these fields over it."""
        form = re.search(rf'<form method="post" action="{re.escape(to)}".*?</form>', self.page, re.S)
        assert form, (to, self.page)
        hidden = re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', form[0])
        data = [(html.unescape(name), html.unescape(value)) for name, value in hidden if name not in fields]
        for name, value in fields.items():
            data += [(name, each) for each in (value if isinstance(value, list) else [value])]
        status = self.ask(to, data)
        assert status == 200, (to, status, self.page)
        return self.page
