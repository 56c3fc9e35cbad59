//! Bodies of runs, made from the fixtures.

use serde_json::{Value, json};

/// A fixture by its name in `tests/fixtures/api`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/api/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A run's body, to be changed and sent.
pub struct RunBody(Value);

/// A run that is PROCESSING.
pub fn run() -> RunBody {
    RunBody(serde_json::from_slice(&fixture("run_processing.json")).unwrap())
}

impl RunBody {
    /// With this status.
    pub fn status(self, status: &str) -> Self {
        self.set("status", json!(status))
    }

    /// With these counts.
    pub fn samples(self, completed: u64, failed: u64, total: u64) -> Self {
        let mut body = self.set("samples_completed", json!(completed)).set("samples_failed", json!(failed));
        body.0["runtime_params"]["number_of_samples"] = json!(total);
        body
    }

    /// With this field.
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    /// As the list has it.
    pub fn in_list(mut self) -> Value {
        for field in ["runtime_params", "generated_files"] {
            self.0.as_object_mut().unwrap().remove(field);
        }
        self.0
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// As a 200.
    pub fn ok(&self) -> super::stub::Answer {
        super::stub::json(self.bytes())
    }
}
