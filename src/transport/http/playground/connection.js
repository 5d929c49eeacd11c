"use strict";

// Socket.IO 5 over Engine.IO 4 over a WebSocket, as far as this page needs it: the main namespace, JSON only.

/** Pauses between attempts to connect: the first, the longest. */
const RETRY_MS = [500, 8_000];

/** How long the first message may take; from then on the hub says how often it sends a ping. */
const FIRST_MESSAGE_MS = 10_000;

/** Events that may wait for their acknowledgements. */
const ACKS_MAX = 100;

const refusal = (error, message) => ({ ok: false, error, message });

/** One connection to the hub. After a loss it comes back by itself, after a refusal it does not. */
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
   * `token()` resolves with what CONNECT carries, `null` for a guest. `state(name, detail)` hears of `connecting`,
   * `connected`, `lost` (detail: ms until the next attempt), `refused` (detail: the hub's message), `ended` (the hub
   * wants no reconnection) and `closed`; `event(name, payload)` of events.
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

  /** Leaves, and does not come back before `open`. */
  close() {
    this.#end("closed");
  }

  /** Resolves with the acknowledgement, or with a refusal like the hub's where none comes. Only while connected. */
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

  /** The session is open; asks for the namespace. */
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
        return this.#handlers.state("connected", content.sid);
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

  /** Comes back after a pause, longer each time and never the same for all. */
  #lost() {
    this.#drop();
    const pause = this.#retryMs * (0.75 + Math.random() / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS[1]);
    this.#retry = setTimeout(() => this.open(), pause);
    this.#handlers.state("lost", pause);
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

  /** Nothing of this attempt is heard any more. */
  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#connected = false;
    // The session goes at once, without waiting for the close to be answered.
    if (socket?.readyState === WebSocket.OPEN) socket.send("41");
    socket?.close();
    for (const resolve of this.#acks.values()) resolve(refusal("not_connected", "the connection was lost"));
    this.#acks.clear();
  }
}
