"""The console in a real browser: who has a keyboard only logs in and launches two instances; their serial consoles are read and
written in the page; an image is made, shared, copied and deregistered; pages fit, and are what the policy allows.

    browser.py IMAGE SCRATCH [SCREENSHOTS]
"""

import os
import sys
import time

import boto3
from webdriver import CONTROL, DOWN, ENTER, SPACE, TAB, Browser

base = os.environ["AWS_ENDPOINT_URL"]
image, scratch = sys.argv[1:3]
shots = sys.argv[3] if len(sys.argv) > 3 else None
ec2 = boto3.client("ec2")

# Contrast of the text of what a selector finds with what is behind it. (WCAG 2.2, 1.4.3)
CONTRAST = """
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = channels(color).slice(0, 3).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 && element.parentElement ? behind(element.parentElement) : color;
  };
  return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility()).map((element) => {
    const pair = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), element.tagName + ' ' + element.textContent.slice(0, 40)];
  }).filter(([contrast]) => contrast < 4.5);
"""
# What a screen reader has no word for, and what is wrong with the headings.
UNNAMED = """
  const named = (e) => e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim();
  const controls = [...document.querySelectorAll('input:not([type=hidden]), select, textarea:not(.xterm-helper-textarea), button, a')];
  const bad = controls.filter((e) => !named(e)).map((e) => e.outerHTML);
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  const twice = ids.filter((id, at) => ids.indexOf(id) !== at);
  return bad.concat(twice, document.querySelectorAll('h1').length === 1 ? [] : ['h1'], document.documentElement.lang ? [] : ['lang']);
"""


def look(browser, path, name=None):
    """A page fits in a narrow and in a wide window, is legible in both schemes, and has names for all."""
    browser.get(base + path)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for width in (360, 1920):
        browser.width(width)
        wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], (path, width, wide)
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        bad = browser.run(CONTRAST, "h1, p, a, button, th, td, label, dt, dd, .hint")
        assert not bad, (path, scheme, bad)
    unnamed = browser.run(UNNAMED)
    assert not unnamed, (path, unnamed)
    browser.scheme("light")
    browser.width(500 if name == "launch" else 1280)
    if shots and name:
        browser.run("document.querySelectorAll('details').forEach((d) => { d.open = false; })")
        time.sleep(0.5)
        browser.screenshot(f"{shots}/{name}.png")


def shown(browser):
    """What is in the terminal, as a screen reader has it."""
    return "return [...document.querySelectorAll('.xterm-accessibility-tree > div')].map((row) => row.textContent).join('\\n')"


def settled(browser, path):
    """Waits for the page after a form."""
    browser.until(f"page {path}", "return document.readyState === 'complete' && location.pathname.startsWith(arguments[0])", path)


def open_form(browser, to):
    """Opens the card with the form of that address; the form's selector."""
    form = f"form[action='{to}']"
    browser.run("document.querySelector(arguments[0]).closest('details').open = true", form)
    return form


def send(browser, form):
    browser.click(f"{form} button")


with Browser(scratch) as browser:
    browser.width(1280)
    # By the keyboard alone: the login page has the focus where it begins.
    browser.get(f"{base}/console/login")
    browser.keys(*os.environ["AWS_ACCESS_KEY_ID"], TAB, *os.environ["AWS_SECRET_ACCESS_KEY"], ENTER)
    settled(browser, "/console")
    browser.tab_to("a[href='/console/launch']")
    browser.keys(ENTER)
    settled(browser, "/console/launch")
    browser.tab_to("a[href='/console/launch?catalog=mine']")
    browser.keys(ENTER)
    browser.until("my images", "return location.search === '?catalog=mine' && document.readyState === 'complete'")
    browser.tab_to("input[name=image]")
    for _ in range(10):
        if browser.run("return document.activeElement.value") != image:
            browser.keys(DOWN)
    assert browser.run("return document.querySelector('input[name=image]:checked').value") == image
    browser.tab_to("#name")
    browser.keys(*"<b>web</b>")
    browser.tab_to("#count")
    browser.run("document.activeElement.select()")
    browser.keys("2")
    browser.tab_to("button[value=review]")
    browser.keys(ENTER)
    browser.until("the summary", "return document.querySelector('button[value=launch]')")
    assert "aws ec2 run-instances" in browser.run("return document.querySelector('pre').textContent")
    browser.tab_to("button[value=launch]")
    browser.keys(SPACE)
    settled(browser, "/console/instances")
    ids = browser.until("two that run", """
        const links = [...document.querySelectorAll('tr:has(.running) a')].map((a) => a.textContent);
        return links.length === 2 && links""")
    assert "<b>web</b>" in browser.run("return document.querySelector('main').textContent")
    browser.log()

    # The serial console of each: what it said before, what it says, and what is typed.
    for number, id in enumerate(ids):
        browser.get(f"{base}/console/instances/{id}")
        browser.until("the console", shown(browser) + ".includes('echo: ready')")
        browser.until("a connection", "return document.getElementById('line').textContent.startsWith('Connected. ')")
        browser.click("#terminal")
        browser.keys(*f"hello, {number}")
        browser.until("the echo", shown(browser) + ".includes(arguments[0])", f"hello, {number}")
    if shots:
        browser.screenshot(f"{shots}/console.png")
    browser.keys((CONTROL, "]"))
    assert browser.run("return document.activeElement.id") == "size"
    browser.keys(ENTER)
    browser.until("the size", shown(browser) + ".includes('stty rows ')")

    # An image of one that runs: pending, then available without a look at another page.
    browser.get(f"{base}/console/instances/{ids[0]}")
    form = open_form(browser, f"/console/instances/{ids[0]}/image")
    browser.fill(f"{form} [name=Name]", "by-browser")
    browser.click(f"{form} [name=NoReboot]")
    send(browser, form)
    made = browser.until("a link to the image", "return document.querySelector('.done a')?.textContent")
    browser.click(".done a")
    settled(browser, f"/console/images/{made}")
    browser.until("an image", "return document.querySelector('dl .available')")

    form = open_form(browser, f"/console/images/{made}/permissions")
    browser.click(f"{form} [value=yes]")
    browser.fill(f"{form} [name=account]", "12345")
    send(browser, form)
    browser.until("word of the permissions", "return document.querySelector('.done a')")
    permissions = ec2.describe_image_attribute(ImageId=made, Attribute="launchPermission")["LaunchPermissions"]
    assert {"Group": "all"} in permissions and {"UserId": "12345"} in permissions, permissions

    browser.get(f"{base}/console/images/{made}")
    form = open_form(browser, f"/console/images/{made}/copy")
    browser.fill(f"{form} [name=Name]", "copy (1)")
    send(browser, form)
    copied = browser.until("a link to the copy", "return document.querySelector('.done a')?.textContent")
    assert copied.startswith("ami-") and copied != made
    browser.until("the copy", "return document.querySelectorAll('tr:has(.available)').length >= 2")

    for path, name in [("", "dashboard"), ("/instances", "instances"), (f"/instances/{ids[0]}", "instance"), ("/images", None),
                       (f"/images/{made}", "image"), ("/launch", "launch"), ("/volumes", None), ("/snapshots", None), ("/keys", None),
                       ("/networks", None), ("/groups", None), ("/scaling", None), ("/regions", None), ("/usage", "usage"), ("/events", None)]:
        look(browser, "/console" + path, name)

    for each in (copied, made):
        browser.get(f"{base}/console/images/{each}")
        form = open_form(browser, f"/console/images/{each}/deregister")
        browser.click(f"{form} [type=checkbox]")
        send(browser, form)
        browser.until("word of the end", "return document.querySelector('.done')")
    assert not ec2.describe_images(Filters=[{"Name": "image-id", "Values": [made, copied]}])["Images"]

    # The console says that the instance has ended; the list says so, too.
    browser.get(f"{base}/console/instances/{ids[0]}")
    browser.until("a connection", "return document.getElementById('line').textContent.startsWith('Connected. ')")
    ec2.terminate_instances(InstanceIds=[ids[0]])
    browser.until("the end", "return document.getElementById('line').textContent.includes('has ended')")
    browser.get(f"{base}/console/instances")
    browser.click(f"input[value='{ids[1]}']")
    browser.click("button[value=terminate]")
    browser.until("a question", "return document.querySelector('form .danger') && document.querySelector('h1').textContent.startsWith('Terminate')")
    assert ec2.describe_instances(InstanceIds=[ids[1]])["Reservations"][0]["Instances"][0]["State"]["Name"] == "running"
    browser.click("main button.danger")
    settled(browser, "/console/instances")
    browser.until("the end of both", "return !document.querySelector('.running')")

    complaints = browser.log()
    assert not complaints, complaints
