//! Step accounting of rendering: the remaining steps of a field, its workload and its update.
//!
//! A [`Budget`] belongs to an update, a [`Meter`] to one field. Steps are charged before the work, and
//! exceeding a limit ends the rendering with an error naming this limit.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use handlebars::{RenderError, RenderErrorReason};

use crate::limits::{FIELD_STEPS, MOST_BYTES, UPDATE_STEPS, WORKLOAD_STEPS};

/// Rendered bytes per step. Nested sequences are copied once for each level.
// `render::search` checks this number.
const BYTES_A_STEP: u64 = 8;

/// A limit on steps is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfSteps {
    /// Work outside of rendering exceeds the steps of the update.
    #[error("the update takes more than {UPDATE_STEPS} steps")]
    Update,
    /// Rendering exceeds the steps of a `field`, a `workload` or the `update`.
    #[error("rendering takes more than the {1} steps of one {0}")]
    Rendering(&'static str, u64),
}

/// The remaining steps of an update and of its current workload.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    update: u64,
    workload: u64,
}

impl Budget {
    /// The budget of an update requested by a workload.
    #[must_use]
    pub fn of_update() -> Self {
        Self { update: UPDATE_STEPS, workload: WORKLOAD_STEPS }
    }

    /// The budget of accepted state and of updates by the agent itself: only each workload is bounded.
    #[must_use]
    pub fn unbounded() -> Self {
        Self { update: u64::MAX, workload: WORKLOAD_STEPS }
    }

    /// Starts the budget of the next workload.
    pub(super) fn begin_workload(&mut self) {
        self.workload = WORKLOAD_STEPS;
    }

    /// A meter for one field.
    pub(super) fn field(&self) -> Arc<Meter> {
        let most = FIELD_STEPS.min(self.workload).min(self.update);
        let whose = match most {
            most if most == self.update && self.update < self.workload => ("update", UPDATE_STEPS),
            most if most == self.workload && self.workload < FIELD_STEPS => {
                ("workload", WORKLOAD_STEPS)
            }
            _ => ("field", FIELD_STEPS),
        };
        Arc::new(Meter { most, whose, used: AtomicU64::new(0) })
    }

    /// Charges steps to the workload and the update.
    ///
    /// # Errors
    /// Fewer steps are left.
    pub fn charge(&mut self, steps: u64) -> Result<(), OutOfSteps> {
        // A meter first, as it knows the tightest of the limits for the error.
        let meter = self.field();
        self.take(steps);
        meter.charge(steps)
    }

    /// Charges steps for work outside of rendering, to the update only.
    ///
    /// # Errors
    /// Fewer steps are left.
    pub fn charge_update(&mut self, steps: u64) -> Result<(), OutOfSteps> {
        if steps > self.update {
            return Err(OutOfSteps::Update);
        }
        self.take(steps);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.update
    }

    pub(super) fn settle(&mut self, meter: &Meter) {
        self.take(meter.used());
    }

    fn take(&mut self, steps: u64) {
        // Saturating: a meter adds a charge before it fails, so more may be used than was left.
        self.workload = self.workload.saturating_sub(steps);
        // Unbounded stays unbounded.
        if self.update != u64::MAX {
            self.update = self.update.saturating_sub(steps);
        }
    }
}

/// The steps of one field. Shared with the helpers of the engine.
#[derive(Debug)]
pub(super) struct Meter {
    most: u64,
    whose: (&'static str, u64),
    used: AtomicU64,
}

impl Meter {
    /// Charges steps.
    pub(super) fn charge(&self, steps: u64) -> Result<(), OutOfSteps> {
        // Relaxed is enough: a field is rendered by one thread.
        let before = self.used.fetch_add(steps, Ordering::Relaxed);
        if before.saturating_add(steps) <= self.most {
            return Ok(());
        }
        let (whose, most) = self.whose;
        Err(OutOfSteps::Rendering(whose, most))
    }

    /// Charges steps from inside the engine.
    pub(super) fn step(&self, steps: u64) -> Result<(), RenderError> {
        self.charge(steps).map_err(|error| RenderErrorReason::Other(error.to_string()).into())
    }

    pub(super) fn left(&self) -> u64 {
        self.most.saturating_sub(self.used())
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// An output buffer with a limit on its bytes and steps.
pub(super) struct Bounded<'m> {
    pub(super) bytes: Vec<u8>,
    meter: &'m Meter,
}

impl<'m> Bounded<'m> {
    pub(super) fn new(meter: &'m Meter) -> Self {
        Self { bytes: Vec::new(), meter }
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MOST_BYTES {
            let text = format!("the field would take more than {MOST_BYTES} bytes");
            return Err(io::Error::other(text));
        }
        // At least one: a write has a cost even without a byte.
        let steps = 1 + u64::try_from(bytes.len()).unwrap_or(u64::MAX) / BYTES_A_STEP;
        self.meter.charge(steps).map_err(io::Error::other)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
