//! A peer of Vigie in measurements: the same behaviour on plain socketioxide with its own Redis adapter, the way a site
//! would write it with the library alone.
//!
//!     cargo run --release --example socketioxide -- 127.0.0.1:8181 127.0.0.1:8182 redis://127.0.0.1:6379
//!
//! `AUTH_SECRET` signs tokens, `API_KEY` is what back ends present.

#![allow(clippy::disallowed_methods, reason = "this program describes no API")]

use std::error::Error;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use fred::prelude::{Builder, Client, ClientLike, Config, FredResult};
use fred::types::{ClusterHash, CustomCommand, FromValue, RespVersion, Value};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::json;
use socketioxide::SocketIo;
use socketioxide::adapter::Emitter;
use socketioxide::extract::{AckSender, Data, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide_redis::{FredAdapter, RedisAdapterCtr};

type Adapter = FredAdapter<Emitter>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [public, internal, redis] = arguments.as_slice() else {
        return Err("give two addresses, public and internal, and the URL of Redis".into());
    };
    let mut config = Config::from_url(redis)?;
    config.version = RespVersion::RESP3;
    let subscriber = Builder::from_config(config.clone()).build_subscriber_client()?;
    let adapter = RedisAdapterCtr::new_with_fred(subscriber).await?;
    let (layer, io) = SocketIo::builder()
        .with_adapter::<Adapter>(adapter)
        .build_layer();
    let redis = Builder::from_config(config).build()?;
    redis.init().await?;
    let site = Arc::new(Site {
        io: io.clone(),
        redis,
        secret: std::env::var("AUTH_SECRET")?,
        api_key: std::env::var("API_KEY")?,
    });

    let (connect, authenticate) = (site.clone(), site.clone());
    let authenticate = move |socket: SocketRef<Adapter>, auth: TryData<Auth>| {
        authenticate.clone().authenticate(socket, auth)
    };
    let connect = move |socket: SocketRef<Adapter>| connect.clone().connect(socket);
    io.ns("/", connect.with(authenticate)).await?;

    let sockets = tokio::net::TcpListener::bind(public).await?;
    let back_ends = tokio::net::TcpListener::bind(internal).await?;
    println!("socketioxide listening public=http://{public} internal=http://{internal}");
    let update = Router::new()
        .route("/api/v1/users/{id}/profile-update", post(update))
        .with_state(site);
    tokio::try_join!(
        axum::serve(sockets, Router::new().layer(layer)).into_future(),
        axum::serve(back_ends, update).into_future(),
    )?;
    Ok(())
}

struct Site {
    io: SocketIo<Adapter>,
    redis: Client,
    secret: String,
    api_key: String,
}

/// The user of a connection.
#[derive(Clone, Copy)]
struct User(u64);

#[derive(Deserialize)]
struct Auth {
    token: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Watch {
    user_id: u64,
}

#[derive(Deserialize)]
struct Update {
    user: serde_json::Value,
}

impl Site {
    fn command<'a, R: FromValue>(
        &'a self,
        name: &'static str,
        words: &[&str],
    ) -> impl Future<Output = FredResult<R>> + use<'a, R> {
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        async move {
            let answer: Value = self.redis.custom(command, words).await?;
            answer.convert()
        }
    }

    async fn authenticate(
        self: Arc<Self>,
        socket: SocketRef<Adapter>,
        TryData(auth): TryData<Auth>,
    ) -> Result<(), &'static str> {
        let Some(token) = auth.ok().and_then(|auth| auth.token) else {
            self.handle(&socket);
            return Ok(());
        };
        let key = DecodingKey::from_secret(self.secret.as_bytes());
        let rules = Validation::new(Algorithm::HS256);
        let claims = jsonwebtoken::decode::<Claims>(&token, &key, &rules);
        let user = claims.ok().and_then(|token| token.claims.sub.parse().ok());
        socket.extensions.insert(User(user.ok_or("invalid_token")?));
        self.handle(&socket);
        Ok(())
    }

    /// Here rather than on connection: the library runs that handler after the client was told that it is connected, and
    /// what the client sends at once would find nobody.
    fn handle(self: Arc<Self>, socket: &SocketRef<Adapter>) {
        let site = self.clone();
        socket.on("get-online-users", move |ack: AckSender<Adapter>| {
            let site = site.clone();
            async move {
                let mut ids: Vec<u64> = site
                    .command("SMEMBERS", &["online"])
                    .await
                    .unwrap_or_default();
                ids.sort_unstable();
                // The client may be gone.
                let _ = ack.send(&ids);
            }
        });
        let site = self;
        socket.on(
            "watch-profile",
            move |socket: SocketRef<Adapter>, Data(watch): Data<Watch>, ack: AckSender<Adapter>| {
                let site = site.clone();
                async move {
                    socket.join(format!("watching-user-{}", watch.user_id));
                    let key = format!("profile:{}", watch.user_id);
                    let last: Option<String> = site
                        .command("HGET", &[&key, "user"])
                        .await
                        .unwrap_or_default();
                    let profile =
                        last.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
                    // The client may be gone.
                    let _ = ack.send(&json!({ "ok": true, "profile": profile }));
                }
            },
        );
    }

    async fn connect(self: Arc<Self>, socket: SocketRef<Adapter>) {
        let Some(User(user)) = socket.extensions.get::<User>() else {
            return;
        };
        socket.join([format!("user-{user}"), format!("watching-user-{user}")]);
        let site = self.clone();
        socket.on_disconnect(move || {
            let site = site.clone();
            async move { site.leave(user).await }
        });
        self.arrive(user).await;
    }

    /// Somebody's first connection makes them online, the last one that goes makes them offline.
    async fn arrive(&self, user: u64) {
        let id = user.to_string();
        let count = self.command("HINCRBY", &["connections", &id, "1"]).await;
        if count.is_ok_and(|count: i64| count == 1) {
            let _: FredResult<i64> = self.command("SADD", &["online", &id]).await;
            self.tell_status(user, "online").await;
        }
    }

    async fn leave(&self, user: u64) {
        let id = user.to_string();
        let count = self.command("HINCRBY", &["connections", &id, "-1"]).await;
        if count.is_ok_and(|count: i64| count <= 0) {
            let _: FredResult<i64> = self.command("HDEL", &["connections", &id]).await;
            let _: FredResult<i64> = self.command("SREM", &["online", &id]).await;
            self.tell_status(user, "offline").await;
        }
    }

    async fn tell_status(&self, user: u64, status: &str) {
        let event = json!({ "userId": user, "status": status });
        // The library says how many it could not tell; there is nobody to tell it to.
        let _ = self.io.emit("user-status-change", &event).await;
    }
}

/// Stores an update and tells it to the user and to whoever watches.
async fn update(
    State(site): State<Arc<Site>>,
    Path(user): Path<u64>,
    headers: HeaderMap,
    Json(update): Json<Update>,
) -> Result<Json<serde_json::Value>, StatusCode> {
    if headers
        .get("x-api-key")
        .is_none_or(|key| key != site.api_key.as_str())
    {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let unavailable = |_| StatusCode::SERVICE_UNAVAILABLE;
    let (key, text) = (format!("profile:{user}"), update.user.to_string());
    let (revision, _): (u64, i64) = tokio::try_join!(
        site.command("HINCRBY", &[&key, "revision", "1"]),
        site.command("HSET", &[&key, "user", &text]),
    )
    .map_err(unavailable)?;
    let event = json!({ "user": update.user, "revision": revision });
    // The library says how many it could not tell; the back end is not asked to try again.
    let watchers = site.io.to(format!("watching-user-{user}"));
    let _ = watchers.emit("profile-update", &event).await;
    Ok(Json(json!({ "revision": revision })))
}
