//! The cheapest way to free enough: a covering knapsack, exactly.
//!
//! Each item gives some units of device memory back and costs something. Items of one expandable
//! segment are its granules, in the order of their addresses: a block that lies in two granules is
//! paid for once, so the cost of a granule depends on whether its lower neighbour is taken.

/// What freeing costs: the sum of the first numbers counts, then that of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Cost(pub u64, pub u64);

impl Cost {
    /// It cannot be done.
    pub(super) const NEVER: Self = Self(u64::MAX, u64::MAX);

    pub(super) fn and(self, other: Self) -> Self {
        match (self.0.checked_add(other.0), self.1.checked_add(other.1)) {
            (Some(first), Some(second)) => Self(first, second),
            _ => Self::NEVER,
        }
    }
}

/// One thing that can be freed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// What it gives back, in units.
    pub gain: usize,
    /// What it costs.
    pub cost: Cost,
    /// What it costs if the item before it is freed, too; `None` if that has nothing to do with it.
    pub cost_behind: Option<Cost>,
}

/// The cheapest choices for every number of units up to the one that was asked for.
#[derive(Debug)]
pub(super) struct Cover {
    /// The items that were looked at: positions in what was given.
    kept: Vec<usize>,
    gains: Vec<usize>,
    width: usize,
    /// For each item and number: two bits, whether the item before was taken in the best choice
    /// without (bit 0) and with (bit 1) this one.
    came_from_taken: Vec<u8>,
    skip: Vec<Cost>,
    take: Vec<Cost>,
}

/// More cells than this are not filled: 64 MB.
const MOST_CELLS: usize = 1 << 26;

impl Cover {
    /// The cheapest choices that give back at least 0, 1, … `units`; `None` if that takes too much
    /// memory.
    ///
    /// # Complexity
    /// O(items × units) time, and a byte for each.
    pub(super) fn of(items: &[Item], units: usize) -> Option<Self> {
        let kept = worth_looking_at(items, units);
        let width = units.checked_add(1)?;
        if kept.len().checked_mul(width)? > MOST_CELLS {
            return None;
        }
        let mut skip = vec![Cost::NEVER; width];
        let mut take = vec![Cost::NEVER; width];
        skip[0] = Cost::default();
        let mut came_from_taken = vec![0; kept.len() * width];
        for (row, &at) in kept.iter().enumerate() {
            let item = &items[at];
            let bits = &mut came_from_taken[row * width..][..width];
            let (mut new_skip, mut new_take) =
                (Vec::with_capacity(width), Vec::with_capacity(width));
            for (units, bits) in bits.iter_mut().enumerate() {
                *bits = u8::from(take[units] < skip[units]);
                new_skip.push(take[units].min(skip[units]));
                let left = units.saturating_sub(item.gain);
                let behind = take[left].and(item.cost_behind.unwrap_or(item.cost));
                let alone = skip[left].and(item.cost);
                *bits |= u8::from(behind < alone) << 1;
                new_take.push(behind.min(alone));
            }
            (skip, take) = (new_skip, new_take);
        }
        let gains = kept.iter().map(|at| items[*at].gain).collect();
        Some(Self { kept, gains, width, came_from_taken, skip, take })
    }

    /// The least cost of giving back so many units, which must not be more than were asked for.
    pub(super) fn cost(&self, units: usize) -> Cost {
        self.skip[units].min(self.take[units])
    }

    /// The items of a cheapest choice; `None` if there is none.
    pub(super) fn choice(&self, units: usize) -> Option<Vec<usize>> {
        if self.cost(units) == Cost::NEVER {
            return None;
        }
        let mut left = units;
        let mut is_taken = self.take[units] < self.skip[units];
        let mut chosen = Vec::new();
        for row in (0..self.kept.len()).rev() {
            let bits = self.came_from_taken[row * self.width + left];
            if is_taken {
                chosen.push(self.kept[row]);
                left = left.saturating_sub(self.gains[row]);
                is_taken = bits & 2 != 0;
            } else {
                is_taken = bits & 1 != 0;
            }
        }
        chosen.reverse();
        Some(chosen)
    }
}

/// Of items of one gain that stand alone only the cheapest are ever chosen, and no more of them than
/// reach the goal.
fn worth_looking_at(items: &[Item], units: usize) -> Vec<usize> {
    let stands_alone = |at: usize| {
        items[at].cost_behind.is_none()
            && items.get(at + 1).is_none_or(|next| next.cost_behind.is_none())
    };
    let mut alone: Vec<usize> = (0..items.len()).filter(|at| stands_alone(*at)).collect();
    alone.sort_by_key(|at| (items[*at].gain, items[*at].cost));
    let mut drop = vec![false; items.len()];
    let (mut gain, mut count) = (0, 0);
    for at in alone {
        let item = &items[at];
        if item.gain != gain {
            (gain, count) = (item.gain, 0);
        }
        count += 1;
        drop[at] = gain == 0 || count > units.div_ceil(gain) || item.cost == Cost::NEVER;
    }
    (0..items.len()).filter(|at| !drop[*at]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The cheapest of all choices.
    fn by_trying(items: &[Item], units: usize) -> Cost {
        let mut best = Cost::NEVER;
        for choice in 0..1_u32 << items.len() {
            let taken = |at: usize| choice >> at & 1 == 1;
            let (mut gain, mut cost) = (0, Cost::default());
            for (at, item) in items.iter().enumerate().filter(|(at, _)| taken(*at)) {
                gain += item.gain;
                let behind = item.cost_behind.filter(|_| at > 0 && taken(at - 1));
                cost = cost.and(behind.unwrap_or(item.cost));
            }
            if gain >= units {
                best = best.min(cost);
            }
        }
        best
    }

    fn item() -> impl Strategy<Value = Item> {
        (0..5_usize, 0..9_u64, proptest::option::of(0..9_u64)).prop_map(|(gain, cost, behind)| {
            Item {
                gain,
                cost: if cost == 8 { Cost::NEVER } else { Cost(cost, 1) },
                cost_behind: behind.map(|behind| Cost(behind.min(cost), 1)),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_choice_is_cheaper(
            items in proptest::collection::vec(item(), 0..10),
            units in 0..20_usize,
        ) {
            let cover = Cover::of(&items, units).unwrap();
            for units in 0..=units {
                prop_assert_eq!(cover.cost(units), by_trying(&items, units));
                let Some(choice) = cover.choice(units) else { continue };
                let gain: usize = choice.iter().map(|at| items[*at].gain).sum();
                prop_assert!(gain >= units);
            }
        }
    }
}
