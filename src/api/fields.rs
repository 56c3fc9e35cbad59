//! Which fields of a run are read, one by one as they arrive, from an object that may contain anything.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::scalar::{Length, NumberOfSamples, Scalar};
use crate::run::{Details, MAX_TEXT, Progress, Run, RunStatus, SpecId, printable};

/// Collects the wanted fields of an object. If a name occurs several times, the last one counts.
pub(super) trait Wire<'de>: Default {
    /// Reads the value of a field. Returns false if the field is not wanted.
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Reads the fields of the object at the start of `json`. Also returns the length of that object in bytes.
pub(super) fn fields<'de, W: Wire<'de>>(json: &'de [u8]) -> serde_json::Result<(W, usize)> {
    struct Object<W>(W);
    impl<'de, W: Wire<'de>> Deserialize<'de> for Object<W> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let mut wire = W::default();
            deserializer.deserialize_map(Fields(&mut wire))?;
            Ok(Self(wire))
        }
    }
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<Object<W>>();
    match values.next() {
        Some(read) => read.map(|Object(wire)| (wire, values.byte_offset())),
        None => Err(serde::de::Error::custom("it is empty")),
    }
}

/// Fills in the fields as they arrive, so that those before an error are kept.
pub(super) struct Fields<'w, W>(pub(super) &'w mut W);

impl<'de, W: Wire<'de>> Visitor<'de> for Fields<'_, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Scalar<'de>>()? {
            if !self.0.take(name.text().unwrap_or_default(), &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The fields needed for every poll.
#[derive(Default)]
pub(super) struct WireRun<'a> {
    pub(super) id: Scalar<'a>,
    pub(super) status: Scalar<'a>,
    samples_completed: Scalar<'a>,
    samples_failed: Scalar<'a>,
    created_at: Scalar<'a>,
    completed_at: Scalar<'a>,
    spec_id: Scalar<'a>,
    runtime_params: NumberOfSamples,
    /// Whether there are two different statuses, or two ids.
    pub(super) is_ambiguous: bool,
}

impl<'de> Wire<'de> for WireRun<'de> {
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "id" => {
                let id: Scalar<'de> = map.next_value()?;
                self.is_ambiguous |= !matches!(self.id, Scalar::Missing) && self.id.text() != id.text();
                self.id = id;
            }
            "status" => {
                let status: Scalar<'de> = map.next_value()?;
                let means = |status: &Scalar<'_>| RunStatus::parse(status.text());
                self.is_ambiguous |=
                    !matches!(self.status, Scalar::Missing) && means(&self.status) != means(&status);
                self.status = status;
            }
            "samples_completed" => self.samples_completed = map.next_value()?,
            "samples_failed" => self.samples_failed = map.next_value()?,
            "created_at" => self.created_at = map.next_value()?,
            "completed_at" => self.completed_at = map.next_value()?,
            "spec_id" => self.spec_id = map.next_value()?,
            "runtime_params" => self.runtime_params = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl WireRun<'_> {
    /// The run, without its details.
    pub(super) fn into_run(self) -> Run {
        Run {
            status: RunStatus::parse(self.status.text()),
            progress: Progress {
                completed: self.samples_completed.count(),
                failed: self.samples_failed.count(),
                total: self.runtime_params.0,
            },
            created_at: self.created_at.time(),
            completed_at: self.completed_at.time(),
            spec_id: self.spec_id.text().and_then(SpecId::parse),
            details: None,
        }
    }

    /// Every field of a run may be missing, but a status alone is not enough: a gateway reports its own health as
    /// `{"status":"ready"}`. A status alone must be exactly one of the API's five words.
    pub(super) fn is_a_run(&self) -> bool {
        let fields =
            [&self.id, &self.samples_completed, &self.samples_failed, &self.created_at, &self.completed_at];
        let alone = fields.into_iter().all(|field| matches!(field, Scalar::Missing))
            && self.runtime_params.0.is_none();
        match self.status {
            Scalar::Missing => !matches!(self.id, Scalar::Missing),
            Scalar::Text(ref word) if alone => {
                matches!(&**word, "PENDING" | "PROCESSING" | "SUCCEEDED" | "FAILED" | "CANCELED")
            }
            _ => true,
        }
    }
}

/// The fields needed from the last answer only.
#[derive(Default)]
pub(super) struct WireDetails<'a> {
    spec_name: Scalar<'a>,
    spec_version: Scalar<'a>,
    dataset_name: Scalar<'a>,
    created_by_email: Scalar<'a>,
    total_cost: Scalar<'a>,
    generated_files: Length,
}

impl<'de> Wire<'de> for WireDetails<'de> {
    fn take<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "spec_name" => self.spec_name = map.next_value()?,
            "spec_version" => self.spec_version = map.next_value()?,
            "dataset_name" => self.dataset_name = map.next_value()?,
            "created_by_email" => self.created_by_email = map.next_value()?,
            "total_cost" => self.total_cost = map.next_value()?,
            "generated_files" => self.generated_files = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl From<WireDetails<'_>> for Details {
    fn from(wire: WireDetails<'_>) -> Self {
        let text = |value: Scalar<'_>| value.text().map(|text| printable(text, MAX_TEXT));
        Self {
            spec_name: text(wire.spec_name),
            spec_version: wire.spec_version.integer(),
            dataset_name: text(wire.dataset_name),
            created_by_email: text(wire.created_by_email),
            total_cost: wire.total_cost.number(),
            generated_files: wire.generated_files.0,
        }
    }
}
