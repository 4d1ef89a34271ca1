//! What tests look at.

use super::super::StrBytes;
use super::ConsumerGroup;
use super::change::Change;

impl ConsumerGroup {
    /// Everything that is stored, as the changes that make it.
    pub(in crate::groups) fn stored(&self) -> Vec<Change> {
        let members = self.members.iter();
        let members =
            members.map(|(id, value)| Change::Member(id.clone(), Some(Box::new(value.clone()))));
        let targets = self.targets.iter();
        let targets = targets.map(|(id, value)| Change::Target(id.clone(), Some(value.clone())));
        let currents = self.currents.iter();
        let currents =
            currents.map(|(id, value)| Change::Current(id.clone(), Some(Box::new(value.clone()))));
        let resolved = self.resolved.iter();
        let resolved =
            resolved.map(|(id, value)| Change::Resolved(id.clone(), Some(value.clone())));
        let epochs = [
            Change::Epoch(self.epoch),
            Change::TargetEpoch(self.target_epoch),
        ];
        let all = epochs.into_iter().chain(members).chain(targets);
        all.chain(currents).chain(resolved).collect()
    }

    /// Checks that what follows from what is stored does, and that no partition has two owners.
    pub(in crate::groups) fn assert_sound(&self) {
        let mut again = Self::default();
        for change in self.stored() {
            again.apply(change);
        }
        assert_eq!(again.static_members, self.static_members);
        assert_eq!(again.owners, self.owners);
        assert_eq!(again.subscribers, self.subscribers);
        assert_eq!(again.patterns, self.patterns);
        assert_eq!(again.preferences, self.preferences);
        assert_eq!(again.bytes, self.bytes);
        let owned = self
            .currents
            .values()
            .map(|current| current.owned().count());
        assert_eq!(
            owned.sum::<usize>(),
            self.owners.len(),
            "one owner of a partition"
        );
        assert!(self.orphans.is_empty());
    }

    /// The group's epoch, once it is that of the target and every member has come to it.
    pub(in crate::groups) fn settled_epoch(&self) -> Option<i32> {
        let epoch = self.epoch();
        let is_settled = |id: &StrBytes| self.current(id).is_reconciled_to(epoch);
        let all = epoch == self.assignment_epoch() && self.members.keys().all(is_settled);
        all.then_some(epoch)
    }
}
