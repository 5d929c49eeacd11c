//! What a Redis server says about its own use: processor time, commands, memory, clients.

use std::collections::BTreeMap;
use std::time::Duration;

/// Calls of one command and the time that Redis spent in them, without reading and writing them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) count: u64,
    pub(super) time: Duration,
}

/// The sections cpu, commandstats, memory and clients of `INFO`, of one server or the sum of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RedisUse {
    /// User and system time of the server and its children.
    pub(super) cpu: Duration,
    commands: BTreeMap<String, Calls>,
    /// In bytes.
    pub(super) memory: u64,
    /// Of which for clients: mostly buffers. Redis looks at them once a second.
    client_memory: u64,
    pub(super) clients: u64,
}

impl RedisUse {
    pub(super) fn parse(info: &str) -> Self {
        let mut all = Self::default();
        for line in info.lines() {
            let Some((name, value)) = line.trim().split_once(':') else {
                continue;
            };
            match name {
                "used_cpu_user"
                | "used_cpu_sys"
                | "used_cpu_user_children"
                | "used_cpu_sys_children" => {
                    let seconds = value.parse().unwrap_or_default();
                    all.cpu += Duration::try_from_secs_f64(seconds).unwrap_or_default();
                }
                "used_memory" => all.memory = value.parse().unwrap_or_default(),
                "mem_clients_normal" => all.client_memory = value.parse().unwrap_or_default(),
                "connected_clients" => all.clients = value.parse().unwrap_or_default(),
                _ => {
                    if let Some(command) = name.strip_prefix("cmdstat_") {
                        all.commands.insert(command.to_owned(), Calls::parse(value));
                    }
                }
            }
        }
        all
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.client_memory += other.client_memory;
        self.clients += other.clients;
        for (name, calls) in &other.commands {
            let sum = self.commands.entry(name.clone()).or_default();
            sum.count += calls.count;
            sum.time += calls.time;
        }
    }

    /// Memory without that for clients, in bytes.
    pub(super) fn data(&self) -> u64 {
        self.memory.saturating_sub(self.client_memory)
    }

    /// Calls of scripts, with the commands that they ran.
    pub(super) fn scripts(&self) -> Calls {
        const SCRIPTS: [&str; 6] = [
            "eval",
            "eval_ro",
            "evalsha",
            "evalsha_ro",
            "fcall",
            "fcall_ro",
        ];
        self.calls_of(&SCRIPTS)
    }

    pub(super) fn calls_of(&self, names: &[&str]) -> Calls {
        let known = names.iter().filter_map(|name| self.commands.get(*name));
        known.fold(Calls::default(), |sum, calls| Calls {
            count: sum.count + calls.count,
            time: sum.time + calls.time,
        })
    }

    /// Commands carried out, those that scripts ran included.
    pub(super) fn commands(&self) -> u64 {
        self.commands.values().map(|calls| calls.count).sum()
    }
}

impl Calls {
    /// Reads `calls=21,usec=175,usec_per_call=8.33,…`.
    fn parse(text: &str) -> Self {
        let field = |name: &str| -> u64 {
            let mut fields = text.split(',').filter_map(|field| field.split_once('='));
            let value = fields.find(|(known, _)| *known == name);
            value
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or_default()
        };
        Self {
            count: field("calls"),
            time: Duration::from_micros(field("usec")),
        }
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            count: self.count.saturating_sub(before.count),
            time: self.time.saturating_sub(before.time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Clients\r\nconnected_clients:3\r\n# Memory\r\nused_memory:1000\r\nused_memory_rss:9\r\n\
        mem_clients_normal:300\r\n\
        # CPU\r\nused_cpu_sys:0.500000\r\nused_cpu_user:1.250000\r\nused_cpu_sys_children:0.250000\r\n\
        used_cpu_user_children:0.000000\r\nused_cpu_sys_main_thread:0.4\r\n# Commandstats\r\n\
        cmdstat_evalsha:calls=10,usec=400,usec_per_call=40.00,rejected_calls=0,failed_calls=0\r\n\
        cmdstat_eval:calls=2,usec=100,usec_per_call=50.00,rejected_calls=0,failed_calls=0\r\n\
        cmdstat_sadd:calls=10,usec=20,usec_per_call=2.00,rejected_calls=0,failed_calls=0\r\n";

    #[test]
    fn the_use_of_a_server_is_read() {
        let used = RedisUse::parse(INFO);
        assert_eq!(used.cpu, Duration::from_secs(2));
        assert_eq!((used.memory, used.data(), used.clients), (1000, 700, 3));
        let scripts = Calls {
            count: 12,
            time: Duration::from_micros(500),
        };
        assert_eq!(used.scripts(), scripts);
        assert_eq!(used.commands(), 22);
    }

    #[test]
    fn masters_add_up() {
        let mut both = RedisUse::parse(INFO);
        both.add(&RedisUse::parse(INFO));
        assert_eq!(both.cpu, Duration::from_secs(4));
        assert_eq!((both.scripts().count, both.commands()), (24, 44));
        let since = both.scripts().since(RedisUse::parse(INFO).scripts());
        assert_eq!((since.count, since.time), (12, Duration::from_micros(500)));
    }
}
