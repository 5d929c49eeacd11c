"use strict";

// Socket.IO 5 over Engine.IO 4 over a WebSocket, as far as this page needs it: main namespace, JSON, no attachments.

/** Pauses between attempts to connect: the first, the longest. */
const RETRY_MS = [500, 8_000];

/** Time limit for the first message, which states how often the hub sends a ping. */
const FIRST_MESSAGE_MS = 10_000;

/** Events that await their acknowledgements. */
const ACKS_MAX = 100;

const refusal = (error, message) => ({ ok: false, error, message });

/** One connection to the hub. It reconnects by itself after a loss, but not after a refusal. */
class Connection {
  #url;
  #handlers;
  #socket;
  #acks = new Map();
  #nextAck = 0;
  #connected = false;
  #retryMs = RETRY_MS[0];
  #retry;
  #silence;
  #silentMs;

  /**
   * `token()` resolves with the token for CONNECT, `null` for a guest. `state(name, detail)` is called with `connecting`,
   * `connected`, `lost` (reconnects by itself), `refused` (detail: the code), `ended` (the hub sent a disconnect packet)
   * and `closed`; `event(name, payload)` with each event.
   */
  constructor(url, { token, state = () => {}, event = () => {} }) {
    this.#url = url;
    this.#handlers = { token, state, event };
  }

  get connected() {
    return this.#connected;
  }

  open() {
    this.#drop();
    this.#handlers.state("connecting");
    const socket = new WebSocket(`${this.#url}/socket.io/?EIO=4&transport=websocket`);
    this.#socket = socket;
    this.#silentMs = FIRST_MESSAGE_MS;
    this.#watchSilence();
    socket.onmessage = ({ data }) => this.#socket === socket && this.#read(data);
    socket.onclose = () => this.#socket === socket && this.#lost();
  }

  /** Disconnects until the next `open`. */
  close() {
    this.#end("closed");
  }

  /** Resolves with the acknowledgement, or with a refusal if the connection is lost first. Needs a connection. */
  emit(name, payload) {
    if (this.#acks.size >= ACKS_MAX) return Promise.resolve(refusal("busy", "too many events wait for an answer"));
    const id = this.#nextAck++;
    this.#socket.send(`42${id}${JSON.stringify(payload === undefined ? [name] : [name, payload])}`);
    return new Promise((resolve) => this.#acks.set(id, resolve));
  }

  #read(packet) {
    this.#watchSilence();
    switch (packet[0]) {
      case "0":
        return this.#join(JSON.parse(packet.slice(1)));
      case "1":
        return this.#lost();
      case "2":
        return this.#socket.send("3");
      case "4":
        return this.#message(packet.slice(1));
    }
  }

  /** Sends CONNECT once the session is open. */
  async #join({ pingInterval, pingTimeout }) {
    this.#silentMs = pingInterval + pingTimeout;
    const socket = this.#socket;
    const token = await this.#handlers.token();
    if (this.#socket === socket) socket.send(`40${JSON.stringify({ token })}`);
  }

  #message(text) {
    const [, type, id, json] = /^(\d)(\d*)(.*)$/s.exec(text);
    const content = json ? JSON.parse(json) : undefined;
    switch (type) {
      case "0":
        this.#connected = true;
        this.#retryMs = RETRY_MS[0];
        return this.#handlers.state("connected");
      case "1":
        return this.#end("ended");
      case "2":
        return this.#handlers.event(...content);
      case "3":
        this.#acks.get(Number(id))?.(content[0]);
        return this.#acks.delete(Number(id));
      case "4":
        return this.#end("refused", content.message);
    }
  }

  /** Reconnects after a pause with jitter, which doubles each time. */
  #lost() {
    this.#drop();
    const pause = this.#retryMs * (0.75 + Math.random() / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS[1]);
    this.#retry = setTimeout(() => this.open(), pause);
    this.#handlers.state("lost");
  }

  #end(state, detail) {
    this.#drop();
    this.#retryMs = RETRY_MS[0];
    this.#handlers.state(state, detail);
  }

  #watchSilence() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), this.#silentMs);
  }

  /** Closes the socket and ignores whatever it still receives. */
  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#connected = false;
    // The hub then releases the connection without waiting for the WebSocket to close.
    if (socket?.readyState === WebSocket.OPEN) socket.send("41");
    socket?.close();
    for (const resolve of this.#acks.values()) resolve(refusal("not_connected", "the connection was lost"));
    this.#acks.clear();
  }
}
