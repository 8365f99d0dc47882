//! What many entries have in common, stored once.

use std::hash::{Hash, Hasher};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::{
    raw::Site,
    text::{Full, SiteId},
};
use crate::base::Id;

/// Distinct sites. The first is that of which nothing is known.
pub(super) struct Sites {
    pub(super) all: Vec<Site>,
    table: HashTable<SiteId>,
    /// The one that was asked for last: most entries have that of the entry before.
    last: SiteId,
}

impl Default for Sites {
    fn default() -> Self {
        Self { all: vec![Site::default()], table: HashTable::new(), last: SiteId::UNKNOWN }
    }
}

impl Sites {
    pub(super) fn get(&self, id: SiteId) -> Site {
        self.all.get(id.index()).copied().unwrap_or_default()
    }

    /// The number of `site`, new or old.
    #[inline]
    pub(super) fn intern(&mut self, site: Site) -> Result<SiteId, Full> {
        if self.get(self.last) != site {
            self.last = self.find_or_add(site)?;
        }
        Ok(self.last)
    }

    fn find_or_add(&mut self, site: Site) -> Result<SiteId, Full> {
        let Self { all, table, .. } = self;
        if site == Site::default() {
            return Ok(SiteId::UNKNOWN);
        }
        let hash = hash(&site);
        if let Some(&id) = table.find(hash, |id| all[id.index()] == site) {
            return Ok(id);
        }
        let id = SiteId::new(all.len()).ok_or(Full)?;
        all.push(site);
        table.insert_unique(hash, id, |id| self::hash(&all[id.index()]));
        Ok(id)
    }
}

fn hash(site: &Site) -> u64 {
    let mut hasher = FxHasher::default();
    site.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::StreamHandle;

    #[test]
    fn equal_sites_have_one_number() {
        let site = |stream| Site { stream: StreamHandle(stream), ..Site::default() };
        let mut sites = Sites::default();
        let ids = [7, 0, 9, 7, 0].map(|stream| sites.intern(site(stream)).unwrap());
        assert_eq!(ids.map(Id::index), [1, 0, 2, 1, 0]);
        assert_eq!(sites.all, [site(0), site(7), site(9)]);
    }
}
