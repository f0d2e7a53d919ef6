//! Log lines: one JSON object each, with the ids of the trace they belong to.

use std::{cell::RefCell, fmt, io::Write};

use serde::ser::{SerializeMap as _, Serializer as _};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::{Layer, layer::Context};

use super::current;

/// A line longer than this gives its buffer back to the system instead of keeping it for the next.
const BUFFER_KEPT_BYTES: usize = 16 * 1024;

/// Writes each event as a line.
pub(super) struct JsonLines<W> {
    write: W,
}

impl JsonLines<fn(&[u8])> {
    /// Lines on standard output, each written whole.
    pub(super) fn stdout() -> Self {
        Self {
            write: |line| {
                // Nobody is left to be told when standard output is gone.
                let _ = std::io::stdout().lock().write_all(line);
            },
        }
    }
}

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for JsonLines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with(|line| {
            // Writing a field may itself log: that inner line takes a buffer of its own.
            let Ok(mut line) = line.try_borrow_mut() else {
                let mut line = Vec::new();
                if write_line(&mut line, event).is_ok() {
                    (self.write)(&line);
                }
                return;
            };
            line.clear();
            if write_line(&mut line, event).is_ok() {
                (self.write)(&line);
            }
            line.shrink_to(BUFFER_KEPT_BYTES);
        });
    }
}

fn write_line(line: &mut Vec<u8>, event: &Event<'_>) -> Result<(), serde_json::Error> {
    // A record of the `log` crate has its level and origin in fields of its own.
    let normalized = event.normalized_metadata();
    let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
    let mut json = serde_json::Serializer::new(&mut *line);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("timestamp", &Now)?;
    map.serialize_entry("level", metadata.level().as_str())?;
    map.serialize_entry("target", metadata.target())?;
    if let Some(context) = current() {
        map.serialize_entry("trace_id", context.trace_id_hex().as_str())?;
        map.serialize_entry("span_id", context.span_id_hex().as_str())?;
    }
    let mut fields = Fields {
        map,
        result: Ok(()),
    };
    event.record(&mut fields);
    fields.result?;
    fields.map.end()?;
    line.push(b'\n');
    Ok(())
}

/// The time of the line, RFC 3339 in UTC, to the microsecond.
struct Now;

impl serde::Serialize for Now {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let now = time::OffsetDateTime::now_utc();
        serializer.collect_str(&format_args!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second(),
            now.microsecond(),
        ))
    }
}

struct Fields<M: serde::ser::SerializeMap> {
    map: M,
    result: Result<(), M::Error>,
}

impl<M: serde::ser::SerializeMap> Fields<M> {
    fn write(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        // Those of a record of the `log` crate, told already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.map.serialize_entry(field.name(), value);
        }
    }
}

impl<M: serde::ser::SerializeMap> Visit for Fields<M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.write(field, &Display(&format_args!("{}", Chain(value))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &Display(&format_args!("{value:?}")));
    }
}

/// An error and what it came from, in one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

struct Display<'a>(&'a fmt::Arguments<'a>);

impl serde::Serialize for Display<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::{TraceContext, in_context};

    /// What `log` logs, as JSON.
    fn lines_of(log: impl FnOnce()) -> Vec<Value> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let layer = JsonLines {
            write: move |line: &[u8]| sink.lock().expect("no panic").push(line.to_vec()),
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let written = written.lock().expect("no panic");
        written
            .iter()
            .map(|line| serde_json::from_slice(line).expect("a line is JSON"))
            .collect()
    }

    #[test]
    fn a_line_has_its_fields_typed() {
        let lines =
            lines_of(|| tracing::warn!(count = 3, done = true, name = "a\"b\n", "said {}", "so"));
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "said so");
        assert_eq!(line["count"], 3);
        assert_eq!(line["done"], true);
        assert_eq!(line["name"], "a\"b\n");
        assert!(
            line["timestamp"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        assert!(line.get("trace_id").is_none());
    }

    #[tokio::test]
    async fn a_line_of_a_request_has_its_trace() {
        let context = TraceContext::root();
        let lines = in_context(context, async { lines_of(|| tracing::info!("inside")) }).await;
        assert_eq!(lines[0]["trace_id"], context.trace_id_hex().as_str());
        assert_eq!(lines[0]["span_id"], context.span_id_hex().as_str());
    }
}
