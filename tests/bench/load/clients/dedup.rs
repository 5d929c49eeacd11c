//! Which of a row of numbered things one client has received.

/// A set of numbers from 0 on, which grows with the largest.
#[derive(Default)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    /// Adds a number; says whether it is new.
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_counts_once() {
        let mut seen = Seen::default();
        assert_eq!(seen.len(), 0);
        for number in [0, 63, 64, 1000, 5] {
            assert!(seen.insert(number), "{number}");
            assert!(!seen.insert(number), "{number}");
        }
        assert_eq!(seen.len(), 5);
    }
}
