"use strict";
// The serial console in an instance's page: xterm.js at a WebSocket. It is the guest's at the other end:
// nothing that it says is done here but shown.
(() => {
  const place = document.getElementById("terminal");
  if (!place) return;
  const [connect, size, line] = ["connect", "size", "line"].map((id) => document.getElementById(id));
  const PIECE = 16 * 1024;
  const RETRIES = 5;
  const terminal = new Terminal({
    fontFamily: "ui-monospace, monospace",
    fontSize: 13,
    linkHandler: { activate() {} },
    screenReaderMode: true,
    scrollback: 5000,
    theme: { background: "#0f1413", foreground: "#d8e3df" },
  });
  const fit = new FitAddon.FitAddon();
  // Before it opens: what draws otherwise makes <style> elements, which the page's policy refuses.
  terminal.loadAddon(new CanvasAddon.CanvasAddon());
  terminal.loadAddon(fit);
  terminal.open(place);
  new ResizeObserver(() => fit.fit()).observe(place);

  let socket;
  let tries = 0;
  const say = (text) => { line.textContent = text; };
  const dimensions = () => `${terminal.rows} rows, ${terminal.cols} columns`;
  const isOpen = () => socket && socket.readyState === WebSocket.OPEN;

  function open() {
    const at = location.origin.replace(/^http/, "ws") + place.dataset.path;
    connect.hidden = true;
    say("Connecting…");
    terminal.reset();
    socket = new WebSocket(at, ["spore-console", place.dataset.csrf]);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      tries = 0;
      size.disabled = false;
      say(`Connected. ${dimensions()}.`);
    };
    socket.onmessage = (message) => terminal.write(new Uint8Array(message.data));
    socket.onclose = closed;
  }

  function closed(event) {
    size.disabled = true;
    const known = event.code === 4000 || event.code === 4001;
    if (!known && tries < RETRIES) {
      tries += 1;
      say("The connection is lost; connecting again…");
      setTimeout(open, 1000 * tries);
      return;
    }
    say(known ? `Disconnected: ${event.reason}.` : "Disconnected.");
    connect.hidden = false;
  }

  const bytes = new TextEncoder();
  function send(typed) {
    if (!isOpen()) return;
    for (let at = 0; at < typed.length; at += PIECE) socket.send(typed.subarray(at, at + PIECE));
  }
  terminal.onData((text) => send(bytes.encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  terminal.onResize(() => { if (isOpen()) say(`Connected. ${dimensions()}.`); });
  // The keyboard leaves the terminal as it leaves `spore console`.
  terminal.attachCustomKeyEventHandler((event) => {
    if (!(event.ctrlKey && event.key === "]")) return true;
    if (event.type === "keydown") {
      event.preventDefault();
      (size.disabled ? place : size).focus();
      terminal.blur();
    }
    return false;
  });
  size.addEventListener("click", () => {
    send(bytes.encode(`stty rows ${terminal.rows} cols ${terminal.cols}\r`));
    terminal.focus();
  });
  connect.addEventListener("click", () => { tries = 0; open(); });
  open();
})();
