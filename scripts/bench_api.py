"""The step `api` of scripts/bench: what asking the EC2 service costs beside the command line."""

import contextlib
import hashlib
import hmac
import http.client
import pathlib
import re
import statistics
import subprocess
import time
import urllib.parse

MIB = 1 << 20
# Records that DescribeInstances tells: of instances that have ended, which are kept for an hour.
RECORDS = 1000
REQUESTS = 100


class Client:
    """Signs requests as AWS's clients do (Signature Version 4), on one connection."""

    def __init__(self, endpoint, environment):
        self.host = endpoint.removeprefix("http://")
        self.key, self.secret = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        self.region = environment["AWS_REGION"]
        self.connection = http.client.HTTPConnection(self.host)

    def __call__(self, action, **parameters):
        """The body of an answer, and the seconds that it took."""
        body = urllib.parse.urlencode({"Action": action, "Version": "2016-11-15"} | parameters)
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/{self.region}/ec2/aws4_request"
        digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
        request = f"POST\n/\n\nhost:{self.host}\nx-amz-date:{now}\n\nhost;x-amz-date\n{digest(body)}"
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = hmac.digest(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest(request)}".encode(), "sha256").hex()
        authorization = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders=host;x-amz-date, Signature={signed}"
        headers = {"Host": self.host, "X-Amz-Date": now, "Authorization": authorization}
        start = time.perf_counter()
        self.connection.request("POST", "/", body, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        took = time.perf_counter() - start
        if answer.status != 200:
            raise SystemExit(f"bench: {action}: {text}")
        return text, took


@contextlib.contextmanager
def served(spore):
    """The service of a store, and a client of it."""
    serve = subprocess.Popen([spore.program, "serve", "--listen", "127.0.0.1:0", "--network", "none"],
                             env=spore.environment, stderr=subprocess.PIPE, text=True)
    try:
        endpoint = serve.stderr.readline().strip().rsplit(" at ", 1)[1]
        lines = spore("env", "--endpoint", endpoint).splitlines()
        pairs = (line.removeprefix("export ").split("=", 1) for line in lines)
        yield serve.pid, Client(endpoint, {name: value.strip("'") for name, value in pairs})
    finally:
        serve.terminate()
        serve.wait()


def memory(pid):
    """Bytes of PSS."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss: +(\d+)", text, re.M)[1]) * 1024


def measure(results, spore, percentile, turns=21):
    with served(spore) as (pid, ask):
        time.sleep(1)
        results.add("api: memory of the service at rest", memory(pid) / MIB, "MiB")
        took = {"by the API": [], "by the command line": []}
        for _ in range(turns):
            took["by the API"].append(ask("RunInstances", ImageId="demo", MinCount=1, MaxCount=1)[1])
            start = time.perf_counter()
            spore("run", "demo", "-q")
            took["by the command line"].append(time.perf_counter() - start)
        for name, seconds in took.items():
            results.add(f"api: an instance launched {name}", statistics.median(seconds) * 1000, "ms", p99=percentile(seconds, 0.99) * 1000)
        ended = 2 * turns
        while ended < RECORDS:
            count = min(100, RECORDS - ended)
            spore("run", "demo", "-q", "-n", count)
            ended += count
            spore("wait", "--all", "--for", "terminated", check=False)
        ask("DescribeInstances")
        seconds = [ask("DescribeInstances")[1] for _ in range(REQUESTS)]
        text = ask("DescribeInstances")[0]
        records = text.count("<instanceId>")
        results.add(f"api: DescribeInstances of {records}", statistics.median(seconds) * 1000, "ms", p99=percentile(seconds, 0.99) * 1000)
        one = re.search("<instanceId>(.*?)</instanceId>", text)[1]
        seconds = [ask("DescribeInstances", **{"InstanceId.1": one})[1] for _ in range(REQUESTS)]
        results.add("api: DescribeInstances of one of these", statistics.median(seconds) * 1000, "ms", p99=percentile(seconds, 0.99) * 1000)
        results.add("api: memory of the service afterwards", memory(pid) / MIB, "MiB")
