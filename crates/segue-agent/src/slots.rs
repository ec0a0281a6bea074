//! The slots of one agent instance on its host.

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// As many slots as attempts may run at a time; their number may change while some are taken. Whoever waits is served in turn.
///
/// The store counts slots as well, and gives one away as soon as it gives an attempt up. Here it is held until the process of that attempt has ended.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Semaphore,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    slots: usize,
    /// Slots that are taken and go away with whoever has them, since there were more before.
    surplus: usize,
}

/// A slot that is taken. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    /// So many slots, at least one.
    pub(crate) fn new(slots: usize) -> Slots {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        Slots { free: Semaphore::new(slots), size: Mutex::new(Size { slots, surplus: 0 }) }
    }

    /// So many slots from now on, at least one. What is taken beyond that is not given out again.
    pub(crate) fn resize(&self, slots: usize) {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        let mut size = self.size.lock();
        if slots > size.slots {
            let more = slots - size.slots;
            let kept = more.min(size.surplus);
            size.surplus -= kept;
            self.free.add_permits(more - kept);
        } else {
            let fewer = size.slots - slots;
            size.surplus += fewer - self.free.forget_permits(fewer);
        }
        size.slots = slots;
    }

    /// Waits for a slot. Whoever stops waiting gives up nothing but their turn.
    pub(crate) async fn take(&self) -> Slot<'_> {
        if let Ok(permit) = self.free.acquire().await {
            permit.forget();
        }
        // It is never closed, so there is no other end.
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut size = self.0.size.lock();
        match size.surplus.checked_sub(1) {
            Some(left) => size.surplus = left,
            None => self.0.free.add_permits(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn take(slots: &Slots) -> Option<Slot<'_>> {
        slots.take().now_or_never()
    }

    #[test]
    fn there_are_as_many_as_were_said_and_never_none() {
        let slots = Slots::new(0);
        let only = take(&slots);
        assert!(only.is_some() && take(&slots).is_none());
        drop(only);
        assert!(take(&slots).is_some());
    }

    #[test]
    fn more_slots_are_there_at_once() {
        let slots = Slots::new(1);
        let _one = take(&slots).unwrap();
        slots.resize(3);
        let more = (take(&slots), take(&slots), take(&slots));
        assert!(more.0.is_some() && more.1.is_some() && more.2.is_none());
    }

    #[test]
    fn fewer_slots_wait_until_those_that_are_taken_are_free() {
        let slots = Slots::new(3);
        let (one, two) = (take(&slots).unwrap(), take(&slots).unwrap());
        slots.resize(1);
        assert!(take(&slots).is_none());
        drop(one);
        assert!(take(&slots).is_none(), "two were taken where there is one");
        drop(two);
        let last = take(&slots);
        assert!(last.is_some() && take(&slots).is_none());
    }

    #[test]
    fn growing_again_first_keeps_what_was_to_go() {
        let slots = Slots::new(2);
        let (one, two) = (take(&slots).unwrap(), take(&slots).unwrap());
        slots.resize(1);
        slots.resize(3);
        let third = take(&slots);
        assert!(third.is_some() && take(&slots).is_none());
        drop((one, two, third));
        let all = (take(&slots), take(&slots), take(&slots), take(&slots));
        assert!(all.2.is_some() && all.3.is_none());
    }

    #[test]
    fn whoever_stops_waiting_loses_no_slot() {
        let slots = Slots::new(1);
        let one = take(&slots).unwrap();
        {
            let mut waiting = Box::pin(slots.take());
            assert!((&mut waiting).now_or_never().is_none());
            drop(one);
        }
        assert!(take(&slots).is_some());
    }
}
