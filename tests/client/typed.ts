// A front end in TypeScript, with every event: it is type-checked with what `vigie types` prints, and never run; see
// tests/hub/types.rs. `// @ts-expect-error` fails where the line below it is no error.

import { io, type Socket } from "socket.io-client";
import type {
  Acknowledged,
  ClientToServerEvents,
  ConnectErrorCode,
  ErrorCode,
  Exception,
  Friend,
  HandshakeAuth,
  KickCode,
  Match,
  Opponent,
  ServerToClientEvents,
  Status,
  User,
} from "./vigie";

type HubSocket = Socket<ServerToClientEvents, ClientToServerEvents>;

const auth: HandshakeAuth = { token: null };
const socket: HubSocket = io("http://localhost:8181/socket.io/", { auth, transports: ["websocket"] });

const onlineUsers = new Set<number>();
const profiles = new Map<number, User>();

// ---- what the existing front end does

// Also after a reconnect and a sign-in: a new connection watches nobody, so it asks for everything again.
socket.on("connect", () => {
  socket.emit("get-online-users", (userIds) => {
    onlineUsers.clear();
    userIds.forEach((userId) => onlineUsers.add(userId));
  });
  socket.emit("watch-profile", { userId: 42 }, (reply) => {
    if (!reply.ok) return refused(reply.error, reply.message);
    const name: string | undefined = reply.profile?.username;
    const wins: unknown = reply.stats?.["wins"];
    const friends: Friend[] | null | undefined = reply.friends;
    const matches: Match[] | null | undefined = reply.matches;
    const revisions: (number | null)[] = [reply.revisions.profile, reply.revisions.stats];
    console.log(name, wins, friends, matches, revisions);
  });
});

socket.on("user-status-change", ({ userId, status }) => {
  if (status === "online") onlineUsers.add(userId);
  else onlineUsers.delete(userId);
});

socket.on("profile-update", ({ user, revision }) => {
  if (user.userID !== undefined) profiles.set(user.userID, user);
  const anythingElse: unknown = user["colour"];
  return [anythingElse, revision satisfies number];
});

function login(token: string): void {
  socket.auth = { token } satisfies HandshakeAuth;
  socket.disconnect().connect();
}

// ---- every event without an acknowledgement, and with one

socket.on("connect", () => {
  socket.emit("get-online-users");
  socket.emit("watch-profile", { userId: 42 });
});
socket.emit("unwatch-profile", { userId: 42 });
socket.emit("join-matchmaking");
socket.emit("leave-matchmaking");
socket.emit("refresh-token", { token: "a JWT" });

socket.emit("unwatch-profile", { userId: 42 }, (reply) => reply.ok || refused(reply.error, reply.message));
socket.emit("join-matchmaking", (reply) => {
  if (reply.ok) console.log(reply.status === "queued" || reply.status === "already_queued");
  else if (reply.error === "not_signed_in") login("a JWT");
});
socket.emit("leave-matchmaking", (reply) => reply.ok || refused(reply.error, reply.message));
socket.emit("refresh-token", { token: "a JWT" }, (reply) => {
  if (reply.ok) console.log(new Date(reply.expiresAt));
  else refused(reply.error, reply.message);
});

/** A message for every code: a missing or unknown code is an error. */
const words: Record<ErrorCode, string> = {
  invalid_payload: "a mistake of this page",
  not_signed_in: "sign in first",
  rate_limited: "slow down",
  too_many_watches: "close a profile",
  unavailable: "try again",
  invalid_token: "sign in again",
  unknown_event: "a mistake of this page",
};

function refused(error: ErrorCode, message: string): void {
  console.warn(words[error], message);
}

// ---- promises

async function ask(asking: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> = socket): Promise<void> {
  const online: number[] = await asking.emitWithAck("get-online-users");
  const watched = await asking.emitWithAck("watch-profile", { userId: 42 });
  const queued = await asking.timeout(5000).emitWithAck("join-matchmaking");
  if (watched.ok && queued.ok) console.log(online, watched.profile, queued.status);
  asking.timeout(5000).emit("refresh-token", { token: "a JWT" }, (error, reply) => {
    console.log(error.message, reply.ok && reply.expiresAt);
  });
  // @ts-expect-error: it is a reply, not a text
  const wrong: string = await asking.emitWithAck("watch-profile", { userId: 42 });
  // @ts-expect-error: its payload is missing
  await asking.emitWithAck("watch-profile");
  console.log(wrong);
}

// ---- every event of the hub

socket.on("game-stats-update", ({ userId, stats, revision }) => console.log(userId, stats["wins"], revision));
socket.on("friend-list-update", ({ userId, friends, revision }) => {
  const avatars: (string | null)[] = friends.map((friend) => friend.avatar);
  console.log(userId, avatars, revision);
});
socket.on("match-history-update", ({ userId, matches, revision }) => {
  const won = matches.filter((match) => match.result === "win");
  const points: [number, number][] = won.map((match) => match.score);
  console.log(userId, points, won[0]?.opponent.username, won[0]?.playedAt, revision);
});
socket.on("account-deleted", () => profiles.clear());
socket.on("profile-deleted", ({ userId }) => profiles.delete(userId));
socket.on("match-found", ({ matchId, opponent }) => {
  const { userId, username, avatar }: Opponent = opponent;
  console.log(matchId.length, userId, username ?? "somebody", avatar);
});
socket.on("match-timeout", () => socket.emit("join-matchmaking"));
socket.on("token-expiring", ({ expiresAt }) => console.log(expiresAt - Date.now()));
socket.on("kicked", ({ code, message, reconnect }) => {
  const again: Record<KickCode, boolean> = {
    token_expired: false,
    kicked: false,
    account_deleted: false,
    rate_limited: true,
  };
  console.log(again[code] === reconnect, message);
});
socket.on("exception", ({ event, error, message }: Exception) => console.warn(event, words[error], message));

socket.on("connect_error", ({ message }) => {
  // The client tries again by itself.
  if (socket.active) return;
  switch (message as ConnectErrorCode) {
    case "invalid_token":
    case "token_expired":
    case "account_deleted":
      return login("another JWT");
  }
});

// ---- events of a back end's own, sent with POST /api/v1/users/{id}/events

interface OwnEvents extends ServerToClientEvents {
  "tournament-begins": (payload: { round: number }) => void;
}
const own: Socket<OwnEvents, ClientToServerEvents> = io("http://localhost:8181");
own.on("tournament-begins", ({ round }) => console.log(round.toFixed()));

// ---- what is wrong

// @ts-expect-error: there is no such event
socket.emit("watch-profil", { userId: 42 });
// @ts-expect-error: an id is a number
socket.emit("watch-profile", { userId: "42" });
// @ts-expect-error: the payload is missing
socket.emit("watch-profile");
// @ts-expect-error: the payload has another name
socket.emit("unwatch-profile", { user: 42 });
// @ts-expect-error: it takes no payload
socket.emit("join-matchmaking", { rating: 1000 });
// @ts-expect-error: it takes no payload
socket.emit("leave-matchmaking", 42);
// @ts-expect-error: the token is a text in an object
socket.emit("refresh-token", "a JWT");
// @ts-expect-error: ids are numbers
socket.emit("get-online-users", (users: string[]) => users);
// @ts-expect-error: a refusal has no profile, so `ok` comes first
socket.emit("watch-profile", { userId: 42 }, (reply) => reply.profile);
// @ts-expect-error: the hub sends no such event
socket.on("profile-updated", () => undefined);
// @ts-expect-error: there is no such status
socket.on("user-status-change", ({ status }) => status === "away");
// @ts-expect-error: a profile may have no name
socket.on("profile-update", ({ user }) => user.username.length);
// @ts-expect-error: an opponent may have no name
socket.on("match-found", ({ opponent }) => opponent.username.length);
// @ts-expect-error: there is no such result
socket.on("match-history-update", ({ matches }) => matches[0]?.result === "draw");
// @ts-expect-error: it has no payload
socket.on("match-timeout", (payload) => payload);
// @ts-expect-error: only the hub says so
socket.emit("kicked", { code: "kicked", message: "", reconnect: true });
// @ts-expect-error: there is no such code
export const noCode: ErrorCode = "forbidden";
// @ts-expect-error: there is no such code
export const noConnectError: ConnectErrorCode = "banned";
export const fine: Status = "offline";

socket.on("connect", () => void ask());
