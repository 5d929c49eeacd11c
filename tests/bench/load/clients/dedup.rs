//! Detects what a client receives twice.

/// A bit set that grows with the largest number.
#[derive(Default)]
pub(super) struct Dedup(Vec<u64>);

impl Dedup {
    /// Adds a number; returns whether it is new.
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_counts_once() {
        let mut dedup = Dedup::default();
        assert_eq!(dedup.len(), 0);
        for number in [0, 63, 64, 1000, 5] {
            assert!(dedup.insert(number), "{number}");
            assert!(!dedup.insert(number), "{number}");
        }
        assert_eq!(dedup.len(), 5);
    }
}
