//! The hash tags of the partitions, spread evenly over the slots of a Redis Cluster: masters with equal ranges of slots
//! hold as many partitions each, give or take one.

use fred::util::redis_keyslot;

/// Slots of a Redis Cluster.
const SLOTS: u32 = 16_384;

/// The tag of each of so many partitions. Every node, of any version, must compute the same.
pub fn hash_tags(partitions: u32) -> Vec<String> {
    (0..partitions)
        .map(|partition| hash_tag(partition, partitions))
        .collect()
}

/// The first of `p`, `p.1`, `p.2`, … whose slot is in the partition's share of all slots.
fn hash_tag(partition: u32, partitions: u32) -> String {
    let share = |tag: &str| u32::from(redis_keyslot(tag.as_bytes())) * partitions / SLOTS;
    let mut tag = partition.to_string();
    let mut number = 0_u32;
    while share(&tag) != partition {
        number += 1;
        tag = format!("{partition}.{number}");
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_the_layout() {
        assert_eq!(hash_tags(1), ["0"]);
        assert_eq!(
            hash_tags(6),
            ["0.1", "1.3", "2", "3.10", "4.11", "5.4"],
            "as the design says"
        );
    }

    /// Masters have equal ranges of slots, as `redis-cli --cluster create` assigns them.
    #[test]
    fn masters_hold_as_many_partitions_each_give_or_take_one() {
        for (partitions, masters) in [(32, 16), (64, 4), (32, 3), (7, 3), (64, 5), (100, 16)] {
            let mut held = vec![0_u32; masters as usize];
            for tag in hash_tags(partitions) {
                let slot = u32::from(redis_keyslot(tag.as_bytes()));
                held[(slot * masters / SLOTS) as usize] += 1;
            }
            let least = partitions / masters;
            let spread = if partitions % masters == 0 { 0 } else { 1 };
            let expected = least - spread..=least + spread;
            assert!(
                held.iter().all(|count| expected.contains(count)),
                "{partitions} on {masters}: {held:?}"
            );
        }
    }
}
