//! Common cards, and how much of their memory a program can have.

use crate::base::Bytes;

/// A card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// As it is called for short.
    pub name: &'static str,
    /// What `torch.cuda.get_device_properties(0).total_memory` says: less than what is printed on the
    /// box. Drivers differ by a few MiB, and ECC takes its part.
    pub total: Bytes,
}

const fn card(name: &'static str, total: u64) -> Card {
    Card { name, total: Bytes(total) }
}

/// Common cards, smallest first.
///
/// # Source
/// Bytes that CUDA's `deviceQuery` or PyTorch printed on such a card in public logs; `B200` is known
/// only to 0.01 GiB (178.35 GiB, `pytorch/ao#4002`).
pub const CARDS: [Card; 15] = [
    card("RTX 2080 Ti", 11_554_717_696),
    card("T4", 15_843_721_216),
    card("V100 16GB", 16_945_512_448),
    card("A10", 23_609_475_072),
    card("L4", 23_609_475_072),
    card("RTX 4090", 25_393_692_672),
    card("RTX 3090", 25_438_126_080),
    card("RTX 5090", 33_677_180_928),
    card("V100 32GB", 34_089_730_048),
    card("A100 40GB", 42_298_834_944),
    card("L40S", 47_810_936_832),
    card("A100 80GB", 84_987_740_160),
    card("H100 80GB", 85_017_755_648),
    card("H200", 150_109_880_320),
    card("B200", 191_501_854_310),
];

/// The card of this name, or the only one whose name begins so; case, spaces and hyphens do not matter.
pub fn find(name: &str) -> Option<Card> {
    let is_named = |card: &Card| plain(card.name) == plain(name);
    CARDS.into_iter().find(is_named).or_else(|| match beginning(name).as_slice() {
        [only] => Some(*only),
        _ => None,
    })
}

/// The cards whose names begin so.
pub fn beginning(name: &str) -> Vec<Card> {
    let name = plain(name);
    let begins = |card: &Card| !name.is_empty() && plain(card.name).starts_with(&name);
    CARDS.into_iter().filter(begins).collect()
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// The cards on which a program that needs this much runs, smallest first.
pub fn holding(needed: Bytes) -> impl Iterator<Item = Card> {
    CARDS.into_iter().filter(move |card| card.total >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_stand_in_the_order_of_their_memory() {
        assert!(CARDS.is_sorted_by_key(|card| card.total));
    }

    #[test]
    fn a_card_is_found_however_it_is_written() {
        assert_eq!(find("rtx-4090"), find("RTX 4090"));
        assert_eq!(find("a100 80GB").map(|card| card.total), Some(Bytes(84_987_740_160)));
        assert_eq!(find("h100"), find("H100 80GB"));
        assert_eq!(find("A100"), None, "there are two");
        assert_eq!(beginning("a100").len(), 2);
        assert_eq!(find("A10").map(|card| card.name), Some("A10"));
        assert_eq!(find("RTX 9999"), None);
        assert_eq!(find(""), None);
        assert_eq!(
            holding(Bytes::gib(100)).map(|card| card.name).collect::<Vec<_>>(),
            ["H200", "B200"]
        );
    }
}
