//! Presence in Redis: typed calls of `lua/presence/`, and reads of the sets its scripts maintain.

use std::collections::HashMap;
use std::time::Duration;

use fred::error::Error;
use fred::types::{FromValue, Value};

use super::Redis;
use super::scripts::Reply;
use crate::engine::{
    Admission, EngineError, Expired, Position, RegisteredConnection, Registration,
};
use crate::ids::{ConnectionId, UserConnection, UserId};

impl Redis {
    pub(in crate::engine) async fn register(
        &self,
        user: UserId,
        connection: ConnectionId,
        admission: Admission,
    ) -> Result<Registration, EngineError> {
        let partition = self.partition_of(user);
        let keys = vec![
            self.keys.connections(user),
            self.keys
                .registrations_of(partition, self.incarnation().as_str()),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
            self.keys.revision(partition),
            self.keys.epoch(partition),
            self.keys.profile(user),
            self.keys.revoked(user),
        ];
        let args = vec![
            user.to_string(),
            self.incarnation().to_string(),
            connection.to_string(),
            admission.connections_max.to_string(),
            self.keys.presence_channel(partition),
            admission
                .issued_at_ms
                .map_or_else(String::new, |at_ms| at_ms.to_string()),
        ];
        self.scripts.register.call(&self.servers, keys, args).await
    }

    pub(in crate::engine) async fn register_again(
        &self,
        connections: &[UserConnection],
    ) -> Result<(), EngineError> {
        let Some((first, _)) = connections.first() else {
            return Ok(());
        };
        let (partition, incarnation) = (self.partition_of(*first), self.incarnation());
        let mut keys = vec![
            self.keys.registrations_of(partition, incarnation.as_str()),
            self.keys.registered_nodes(partition),
            self.keys.online(partition),
            self.keys.leaving(partition),
            self.keys.revision(partition),
            self.keys.epoch(partition),
        ];
        let mut args = vec![
            incarnation.to_string(),
            self.keys.presence_channel(partition),
        ];
        for (user, connection) in connections {
            keys.extend([self.keys.connections(*user), self.keys.profile(*user)]);
            args.extend([user.to_string(), connection.to_string()]);
        }
        let script = &self.scripts.register_many;
        let _registered: u64 = script.call(&self.servers, keys, args).await?;
        Ok(())
    }

    pub(in crate::engine) async fn release(
        &self,
        connections: &[UserConnection],
        grace: Duration,
    ) -> Result<u64, EngineError> {
        let incarnation = self.incarnation();
        self.release_of(incarnation.as_str(), connections, grace)
            .await
    }

    /// Releases connections of any incarnation.
    pub(super) async fn release_of(
        &self,
        incarnation: &str,
        connections: &[UserConnection],
        grace: Duration,
    ) -> Result<u64, EngineError> {
        let Some((first, _)) = connections.first() else {
            return Ok(0);
        };
        let partition = self.partition_of(*first);
        let mut keys = vec![
            self.keys.registrations_of(partition, incarnation),
            self.keys.registered_nodes(partition),
            self.keys.leaving(partition),
        ];
        let mut args = vec![incarnation.to_owned(), grace.as_millis().to_string()];
        for (user, connection) in connections {
            keys.push(self.keys.connections(*user));
            args.extend([user.to_string(), connection.to_string()]);
        }
        self.scripts.release.call(&self.servers, keys, args).await
    }

    pub(in crate::engine) async fn expire(
        &self,
        partition: u32,
        batch_max: u32,
        ahead: Duration,
        restart_grace: Duration,
    ) -> Result<Expired, EngineError> {
        let keys = vec![
            self.keys.leaving(partition),
            self.keys.online(partition),
            self.keys.revision(partition),
            self.keys.epoch(partition),
            self.keys.server(partition),
        ];
        let args = vec![
            batch_max.to_string(),
            self.keys.presence_channel(partition),
            ahead.as_millis().to_string(),
            restart_grace.as_millis().to_string(),
        ];
        let (offline, more): (Vec<u64>, Option<u64>) =
            self.scripts.expire.call(&self.servers, keys, args).await?;
        let offline = offline.into_iter();
        Ok(Expired {
            offline: offline.filter_map(|id| UserId::try_from(id).ok()).collect(),
            more: more.is_some(),
        })
    }

    pub(in crate::engine) async fn position(
        &self,
        partition: u32,
    ) -> Result<Position, EngineError> {
        let keys = vec![self.keys.revision(partition), self.keys.epoch(partition)];
        let (epoch, revision): (String, u64) = self
            .scripts
            .position
            .call(&self.servers, keys, Vec::new())
            .await?;
        Ok(Position { epoch, revision })
    }

    pub(in crate::engine) async fn online(
        &self,
        partition: u32,
    ) -> Result<Vec<UserId>, EngineError> {
        // Invalid members are left to the doctor.
        let ids: Vec<String> = self.scan(self.keys.online(partition)).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    pub(in crate::engine) async fn connections_of(
        &self,
        user: UserId,
    ) -> Result<(bool, Vec<RegisteredConnection>), EngineError> {
        let online_key = self.keys.online(self.partition_of(user));
        let is_online = self
            .servers
            .call("SISMEMBER", online_key, vec![user.to_string()]);
        let connections = self
            .servers
            .call("HGETALL", self.keys.connections(user), Vec::new());
        let (online, connections): (bool, HashMap<String, String>) =
            tokio::try_join!(is_online, connections)?;
        let read = |(field, since): (String, String)| registered((field, since.parse().ok()?));
        let mut connections: Vec<_> = connections.into_iter().filter_map(read).collect();
        connections.sort_by(|a, b| {
            (a.connected_at_ms, &a.connection).cmp(&(b.connected_at_ms, &b.connection))
        });
        Ok((online, connections))
    }

    pub(in crate::engine) async fn subscribe_presence(
        &self,
        partition: u32,
    ) -> Result<(), EngineError> {
        let presence = self.keys.presence_channel(partition);
        let pulse = self.keys.pulse_channel(partition);
        self.servers.subscribe(vec![presence, pulse]).await
    }

    pub(in crate::engine) async fn pulse(
        &self,
        partition: u32,
        restart_grace: Duration,
    ) -> Result<(), EngineError> {
        let keys = vec![
            self.keys.revision(partition),
            self.keys.epoch(partition),
            self.keys.server(partition),
        ];
        let args = vec![
            self.keys.pulse_channel(partition),
            restart_grace.as_millis().to_string(),
        ];
        let _listeners: u64 = self.scripts.pulse.call(&self.servers, keys, args).await?;
        Ok(())
    }
}

impl FromValue for Registration {
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut reply = Reply::from_value(value)?;
        match reply.word() {
            "ok" => Ok(Self::Registered {
                refcount: reply.next()?,
                revision: reply.next()?,
                since_ms: reply.next()?,
            }),
            "deleted" => Ok(Self::AccountDeleted),
            "revoked" => Ok(Self::TokenRevoked),
            "full" => Ok(Self::TooManyConnections),
            _ => Err(reply.unknown()),
        }
    }
}

pub(super) fn registered((field, connected_at_ms): (String, u64)) -> Option<RegisteredConnection> {
    let (incarnation, connection) = field.rsplit_once('/')?;
    Some(RegisteredConnection {
        incarnation: incarnation.to_owned(),
        connection: connection.to_owned(),
        connected_at_ms,
    })
}
