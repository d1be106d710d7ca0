"""A browser at the console, without its script: logs in, launches two instances by the wizard, sees what they say, makes an image
of one, changes who may launch it, copies it, deregisters both, terminates."""

import html
import http.client
import os
import re
import sys
import time
import urllib.parse

import boto3
from pages import Browser, base

ec2 = boto3.client("ec2")

# Nothing without a session; nothing by another's name.
stranger = Browser()
for path in ("/console", "/console/instances", "/console/images/ami-1", "/console/launch", "/console/nonsense"):
    stranger.get(path)
    assert stranger.path == "/console/login", (path, stranger.path)
assert stranger.ask("/console/login", headers={"Host": "evil.example"}) == 403
assert stranger.ask("/console/instances/action", {"id": "i-1", "action": "terminate"}) == 200 and stranger.path == "/console/login"
for secret in ("", "x", os.environ["AWS_SECRET_ACCESS_KEY"] + "x"):
    tried = {"access_key_id": os.environ["AWS_ACCESS_KEY_ID"], "secret_access_key": secret}
    assert stranger.ask("/console/login", tried) == 403, secret
assert not list(stranger.jar)

# The link lets in once.
link = sys.argv[1].removeprefix(base)
linked = Browser()
assert linked.ask(link) == 200 and linked.path == "/console", linked.path
assert Browser().ask(link) == 403

browser = Browser()
keys = {"access_key_id": os.environ["AWS_ACCESS_KEY_ID"], "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
assert browser.ask("/console/login", keys) == 200 and browser.path == "/console", (browser.path, browser.page)
cookie = next(iter(browser.jar))
assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "Strict"
for section in ("", "/instances", "/images", "/volumes", "/snapshots", "/launch", "/images?owner=public", "/images?owner=private"):
    browser.get("/console" + section)
for href in set(re.findall(r'href="(/console[^"]*)"', browser.page)):
    if "static" not in href:
        browser.get(html.unescape(href))
# A form without its token, or with another session's, does nothing.
for csrf in ("", "0" * 64, re.search(r'name="csrf" value="(.*?)"', linked.page)[1]):
    assert browser.ask("/console/launch", {"csrf": csrf, "step": "launch", "image": "demo"}) == 403
assert browser.ask("/console/instances", headers={"Origin": "https://evil.example"}) == 403

# Where images are: Quick Start's are not among the community's; a search's words are in any column.
catalogs = {word: browser.get(f"/console/launch?catalog={word}") for word in ("quick", "mine", "marketplace", "community")}
demo = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
assert demo in catalogs["quick"] and demo not in catalogs["community"] + catalogs["marketplace"]
assert sys.argv[2] in browser.get("/console/images?q=x86_64+machine") and sys.argv[2] not in browser.get("/console/images?q=i386")

# The wizard, with a hostile name.
name = "<script>alert(1)</script>'\""
image = sys.argv[2]
page = browser.get("/console/launch?catalog=mine")
assert image in page
sizes = {"device": ["root", "/dev/sdf", "/dev/sdg"], "gib": ["", "1", ""], "volume_type": ["", "", ""], "ends": ["", "delete", "delete"]}
page = browser.send("/console/launch", image=image, count="2", name=name, type="t3.micro", key="none", step="review", **sizes)
assert "aws ec2 run-instances --image-id" in html.unescape(page) and "<script>alert" not in page
review = browser.page
page = browser.send("/console/launch", step="launch")
assert browser.path.startswith("/console/instances?done=launch"), browser.path
launched = [one for many in ec2.describe_instances()["Reservations"] for one in many["Instances"] if one["ImageId"] == image]
assert len(launched) == 2 and all(one["InstanceType"] == "t3.micro" for one in launched), launched
assert all({"Key": "Name", "Value": name} in one["Tags"] for one in launched)
# The form once more is the same launch.
browser.page = review
browser.send("/console/launch", step="launch")
assert sum(len(many["Instances"]) for many in ec2.describe_instances(Filters=[{"Name": "image-id", "Values": [image]}])["Reservations"]) == 2
ids = [one["InstanceId"] for one in launched]
page = browser.get("/console/instances?q=" + ids[0])
assert ids[0] in page and ids[1] not in page and "<script>alert" not in page

volumes = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": ids}])["Volumes"]
assert sorted(one["Attachments"][0]["Device"] for one in volumes)[:2] == ["/dev/sdf"] * 2, volumes

# What they say.
deadline = time.time() + 60
while "button: waiting" not in browser.get(f"/console/instances/{ids[0]}"):
    assert time.time() < deadline, browser.page
    time.sleep(0.1)

# A terminal is for a page of this service with the session's token, and no other.
def terminal(path, origin=base, csrf=None, cookie=True):
    """The status that a WebSocket is answered, and its connection."""
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=60)
    token = csrf if csrf is not None else re.search(r'data-csrf="(.*?)"', browser.page)[1]
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
               "Sec-WebSocket-Protocol": f"spore-console, {token}"}
    headers |= {"Origin": origin} if origin else {}
    headers |= {"Cookie": f"spore-console={next(iter(browser.jar)).value}"} if cookie else {}
    connection.request("GET", path, headers=headers)
    return connection.getresponse(), connection


there = f"/console/instances/{ids[0]}/console"
for wrong in ({"origin": "https://evil.example"}, {"origin": None}, {"csrf": "0" * 64}, {"csrf": ""}, {"cookie": False}):
    assert terminal(there, **wrong)[0].status == 403, wrong
assert terminal("/console/instances/i-00000000000000000/console")[0].status == 400
answer, connection = terminal(there)
assert answer.status == 101 and answer.headers["Sec-WebSocket-Protocol"] == "spore-console", answer.status
# What was said is shown at once; a message that is too long ends it.
assert connection.sock.recv(2)[0] == 0x82
connection.sock.sendall(b"\x82\xff" + (1 << 30).to_bytes(8, "big") + bytes(4) + bytes(1000))
connection.sock.settimeout(60)
try:
    while connection.sock.recv(1 << 16):
        pass
except ConnectionResetError:
    pass

# Off, an image, its permissions, a copy.
browser.send("/console/instances/action", id=ids, action="stop")
ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
browser.get(f"/console/instances/{ids[0]}")
page = browser.send(f"/console/instances/{ids[0]}/image", Name="by-console", Description="d & d", Tag="<b>")
made = re.search(r'href="/console/images/(ami-\w+)"', page)[1]
ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 1})
page = browser.get(f"/console/images/{made}")
assert "by-console" in page and "d &#38; d" in page or "d &amp; d" in page, page
browser.send(f"/console/images/{made}/permissions", public="no", account="12345")
assert ec2.describe_image_attribute(ImageId=made, Attribute="launchPermission")["LaunchPermissions"] == [{"UserId": "12345"}]
browser.get(f"/console/images/{made}")
browser.send(f"/console/images/{made}/permissions", public="yes", remove="12345")
assert ec2.describe_image_attribute(ImageId=made, Attribute="launchPermission")["LaunchPermissions"] == [{"Group": "all"}]
# What looks like a key is shown first, and nothing is changed until somebody is sure.
if telling := sys.argv[3]:
    public = lambda: ec2.describe_images(ImageIds=[telling])["Images"][0]["Public"]
    browser.get(f"/console/images/{telling}")
    page = browser.send(f"/console/images/{telling}/permissions", public="yes", account="")
    assert "/etc/ssh/ssh_host_rsa_key" in page and "Make it public all the same" in page and not public(), page
    browser.send(f"/console/images/{telling}/permissions")
    assert public() and "done=permissions" in browser.path, browser.path
browser.get(f"/console/images/{made}")
browser.send(f"/console/images/{made}/tag", Key="k", Value="<b>", How="set")
page = browser.get(f"/console/images/{made}")
assert "<b>" not in page and {"Key": "k", "Value": "<b>"} in ec2.describe_images(ImageIds=[made])["Images"][0]["Tags"]
page = browser.send(f"/console/images/{made}/copy", Name="copied", Description="", DestinationRegion="")
copied = re.search(r'href="/console/images/(ami-\w+)"', page)[1]
ec2.get_waiter("image_available").wait(ImageIds=[copied], WaiterConfig={"Delay": 1})
for each in (copied, made):
    browser.get(f"/console/images/{each}")
    browser.send(f"/console/images/{each}/deregister", DeleteAssociatedSnapshots="on")
assert not ec2.describe_images(Filters=[{"Name": "image-id", "Values": [made, copied]}])["Images"]

# Volumes, snapshots, keys, groups of rules: each form does its action.
def done(section):
    assert browser.path.startswith(f"/console/{section}") and "done=" in browser.path, (browser.path, browser.page)
    return urllib.parse.unquote(browser.path.split("?")[0].split("/")[-1])


browser.get("/console/volumes")
browser.send("/console/volumes/-/create", Size="1", SnapshotId="", VolumeType="", Tag="<b>vol</b>")
volume = done("volumes/vol-")
assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Tags"] == [{"Key": "Name", "Value": "<b>vol</b>"}] and "<b>vol" not in browser.page
browser.send(f"/console/volumes/{volume}/modify", Size="2")
browser.get(f"/console/volumes/{volume}")
browser.send(f"/console/volumes/{volume}/attach", InstanceId=ids[0], Device="/dev/sdh")
assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["InstanceId"] == ids[0]
browser.get(f"/console/volumes/{volume}")
browser.send(f"/console/volumes/{volume}/detach")
ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1})
browser.get(f"/console/volumes/{volume}")
browser.send(f"/console/volumes/{volume}/snapshot", Description="<i>", Tag="")
snapshot = done("snapshots/snap-")
assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Description"] == "<i>" and "<i>" not in browser.page
browser.send(f"/console/snapshots/{snapshot}/copy", DestinationRegion="", Description="", Tag="")
copy = done("snapshots/snap-")
assert copy != snapshot
browser.get(f"/console/snapshots/{snapshot}")
browser.send(f"/console/snapshots/{snapshot}/image", Name="of-snapshot", Description="", RootDeviceName="/dev/sda1", Architecture="x86_64", VirtualizationType="hvm")
registered = done("images/ami-")
browser.get(f"/console/snapshots/{snapshot}")
assert registered in browser.page
browser.get(f"/console/images/{registered}")
browser.send(f"/console/images/{registered}/deregister")
for section, each in (("volumes", volume), ("snapshots", snapshot), ("snapshots", copy)):
    browser.get(f"/console/{section}/{each}")
    browser.send(f"/console/{section}/{each}/delete")
assert not ec2.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": [snapshot, copy]}])["Snapshots"]
browser.get("/console/keys")
page = browser.send("/console/keys/-/create", KeyName="a/../<k>", KeyType="ed25519")
assert "PRIVATE KEY" in page
browser.get("/console/keys?q=%3Ck%3E")
key = re.search(r'href="/console/keys/(key-\w+)"', browser.page)[1]
browser.get(f"/console/keys/{key}")
browser.send(f"/console/keys/{key}/delete")
assert not ec2.describe_key_pairs(Filters=[{"Name": "key-pair-id", "Values": [key]}])["KeyPairs"]
for section in ("networks", "groups", "scaling", "regions", "usage", "events"):
    browser.get(f"/console/{section}")
assert volume in browser.page

# What is refused says why, and nothing of it runs.
browser.get("/console/launch")
form = re.search(r'name="csrf" value="(.*?)"', browser.page)[1]
assert browser.ask("/console/launch", {"csrf": form, "step": "launch", "image": "<i>none</i>", "count": "1"}) == 400
assert "<i>" not in browser.page and "InvalidAMIID" in browser.page, browser.page
for path in ("/console/nonsense", "/console/images/..%2f..", "/console/instances/i-1/nonsense"):
    assert browser.ask(path) in (400, 404), path

browser.get("/console/instances")
browser.send("/console/instances/action", id=ids, action="terminate")
assert not [one for many in ec2.describe_instances(InstanceIds=ids)["Reservations"] for one in many["Instances"] if one["State"]["Name"] == "terminated"]
browser.send("/console/instances/action")
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
browser.send("/console/logout")
assert browser.path == "/console/login"
browser.get("/console/instances")
assert browser.path == "/console/login"

# Who guesses is shut out for a while.
assert [stranger.ask("/console/login", tried) for _ in range(12)][-1] == 429
