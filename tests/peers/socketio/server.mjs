// A peer of Vigie in measurements: the same behaviour on Node, the way such sites write it by hand.
//
//     node server.mjs --adapter classic|sharded --public PORT --internal PORT --redis URL
//
// AUTH_SECRET signs tokens, API_KEY is what back ends present. The user's id is the token's `sub`.

import http from "node:http";
import { parseArgs } from "node:util";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import jwt from "jsonwebtoken";
import { createClient } from "redis";
import { Server } from "socket.io";

const { values: options } = parseArgs({
  options: {
    adapter: { type: "string", default: "classic" },
    public: { type: "string", default: "8181" },
    internal: { type: "string", default: "8182" },
    redis: { type: "string", default: "redis://127.0.0.1:6379" },
  },
});
const { AUTH_SECRET, API_KEY } = process.env;

const redis = createClient({ url: options.redis });
const subscriber = redis.duplicate();
await Promise.all([redis.connect(), subscriber.connect()]);

const server = http.createServer();
const adapter = { classic: createAdapter, sharded: createShardedAdapter }[options.adapter];
const io = new Server(server, { adapter: adapter(redis, subscriber) });

io.use((socket, next) => {
  const { token } = socket.handshake.auth;
  if (!token) return next();
  try {
    socket.data.userId = Number(jwt.verify(token, AUTH_SECRET, { algorithms: ["HS256"] }).sub);
    next();
  } catch {
    next(new Error("invalid_token"));
  }
});

/** Somebody's first connection makes them online, the last one that goes makes them offline. */
async function arrive(userId) {
  if ((await redis.hIncrBy("connections", String(userId), 1)) !== 1) return;
  await redis.sAdd("online", String(userId));
  io.emit("user-status-change", { userId, status: "online" });
}

async function leave(userId) {
  if ((await redis.hIncrBy("connections", String(userId), -1)) > 0) return;
  await redis.multi().hDel("connections", String(userId)).sRem("online", String(userId)).exec();
  io.emit("user-status-change", { userId, status: "offline" });
}

io.on("connection", (socket) => {
  const { userId } = socket.data;
  if (userId) {
    // Updates go to one room, so that each connection gets them once, and a sharded adapter needs one channel.
    socket.join([`user-${userId}`, `watching-user-${userId}`]);
    arrive(userId);
    socket.on("disconnect", () => leave(userId));
  }
  socket.on("get-online-users", async (answer) => {
    const ids = (await redis.sMembers("online")).map(Number);
    answer?.(ids.sort((a, b) => a - b));
  });
  socket.on("watch-profile", async ({ userId }, answer) => {
    await socket.join(`watching-user-${userId}`);
    const last = await redis.hGetAll(`profile:${userId}`);
    const [profile, revision] = last.user ? [JSON.parse(last.user), Number(last.revision)] : [null, null];
    answer?.({ ok: true, profile, revisions: { profile: revision } });
  });
  socket.on("unwatch-profile", ({ userId }, answer) => {
    socket.leave(`watching-user-${userId}`);
    answer?.({ ok: true });
  });
});

/** Stores an update and tells it to the user and to whoever watches. */
async function update(userId, user) {
  const key = `profile:${userId}`;
  const [revision] = await redis.multi().hIncrBy(key, "revision", 1).hSet(key, "user", JSON.stringify(user)).exec();
  io.to(`watching-user-${userId}`).emit("profile-update", { user, revision });
  return revision;
}

async function bodyOf(request) {
  let body = "";
  for await (const piece of request.setEncoding("utf8")) body += piece;
  return JSON.parse(body);
}

const internal = http.createServer(async (request, response) => {
  const reply = (status, body) => {
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  };
  const [, userId] = request.url.match(/^\/api\/v1\/users\/(\d+)\/profile-update$/) ?? [];
  if (request.headers["x-api-key"] !== API_KEY) return reply(401, { error: "the key is missing or wrong" });
  if (request.method !== "POST" || !userId) return reply(404, { error: "there is no such route" });
  try {
    const { user } = await bodyOf(request);
    reply(200, { revision: await update(Number(userId), user) });
  } catch (error) {
    reply(400, { error: error.message });
  }
});

const listen = (server, port) =>
  new Promise((resolve) => server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 }, resolve));
await Promise.all([listen(server, options.public), listen(internal, options.internal)]);
console.log(
  `socketio listening public=http://127.0.0.1:${server.address().port} internal=http://127.0.0.1:${internal.address().port}`,
);
