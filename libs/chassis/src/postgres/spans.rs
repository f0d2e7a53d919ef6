//! A span for every statement of a request whose trace is exported, by OpenTelemetry's conventions for databases.
//!
//! sqlx tells of each statement when it is over, in an event; this makes a span of it, so that no service has to. The
//! text of a statement has placeholders where its parameters were, so no value gets into a trace.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::SdkTracer;
use sqlx::postgres::PgConnectOptions;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    filter::{DynFilterFn, dynamic_filter_fn},
    layer,
};

/// Where sqlx's events about statements come from.
const TARGET: &str = "sqlx::query";

/// The database that this process's statements go to.
static DATABASE: OnceLock<String> = OnceLock::new();
/// There is another one besides, and sqlx doesn't say which of them a statement went to.
static AMBIGUOUS: AtomicBool = AtomicBool::new(false);

/// Notes the database of a pool, for `db.namespace`.
pub(super) fn connects_to(options: &PgConnectOptions) {
    let Some(name) = options.get_database() else {
        return;
    };
    if DATABASE.get_or_init(|| name.to_owned()) != name {
        AMBIGUOUS.store(true, Ordering::Relaxed);
    }
}

/// The one database of this process.
fn database() -> Option<&'static str> {
    let name = DATABASE.get()?;
    (!AMBIGUOUS.load(Ordering::Relaxed)).then_some(name)
}

/// Makes the spans.
pub(crate) struct StatementSpans {
    tracer: SdkTracer,
}

impl StatementSpans {
    /// Spans that go where `tracer` sends them.
    pub(crate) fn new(tracer: SdkTracer) -> Self {
        Self { tracer }
    }

    /// Lets statements through that belong to an exported trace: for all others sqlx doesn't even make the event.
    pub(crate) fn filter<S: Subscriber>() -> DynFilterFn<S> {
        dynamic_filter_fn(
            (|metadata, _| is_statement(metadata) && is_exported())
                as fn(&Metadata<'_>, &layer::Context<'_, S>) -> bool,
        )
        .with_max_level_hint(LevelFilter::DEBUG)
        .with_callsite_filter(
            (|metadata| {
                if is_statement(metadata) {
                    Interest::sometimes()
                } else {
                    Interest::never()
                }
            }) as fn(&'static Metadata<'static>) -> Interest,
        )
    }
}

fn is_statement(metadata: &Metadata<'_>) -> bool {
    // A slow statement is told at a level of its own.
    metadata.target() == TARGET && matches!(*metadata.level(), Level::DEBUG | Level::WARN)
}

fn is_exported() -> bool {
    Context::map_current(|cx| cx.has_active_span() && cx.span().span_context().is_sampled())
}

impl<S: Subscriber> Layer<S> for StatementSpans {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut statement = Statement::default();
        event.record(&mut statement);
        let text = statement.text();
        let Some(summary) = summary(text) else { return };
        let operation = summary.split(' ').next().unwrap_or_default().to_owned();
        let ended = SystemTime::now();
        let started = ended.checked_sub(statement.elapsed).unwrap_or(ended);
        self.tracer
            .span_builder(summary.clone())
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_attributes(
                [
                    KeyValue::new("db.system.name", "postgresql"),
                    KeyValue::new("db.operation.name", operation),
                    KeyValue::new("db.query.summary", summary),
                    KeyValue::new("db.query.text", text.to_owned()),
                ]
                .into_iter()
                .chain(database().map(|name| KeyValue::new("db.namespace", name))),
            )
            .start_with_context(&self.tracer, &Context::current())
            .end_with_timestamp(ended);
    }
}

/// What sqlx tells of a statement.
#[derive(Default)]
struct Statement {
    /// Its first words, which are the whole of a short one.
    beginning: String,
    /// Its whole text, if it is longer than that.
    whole: String,
    elapsed: Duration,
}

impl Statement {
    fn text(&self) -> &str {
        let whole = self.whole.trim();
        if whole.is_empty() {
            &self.beginning
        } else {
            whole
        }
    }
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.beginning),
            "db.statement" => value.clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.elapsed = Duration::try_from_secs_f64(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// What a statement does and to what, such as `INSERT claims`; `None` for an empty one.
fn summary(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';'));
    let operation = words
        .by_ref()
        .find(|word| !word.is_empty())?
        .to_ascii_uppercase();
    let mut words = words.filter(|word| !word.is_empty());
    let on = if operation == "UPDATE" {
        words.next()
    } else {
        words.by_ref().find(|word| {
            ["FROM", "INTO", "UPDATE"]
                .iter()
                .any(|keyword| word.eq_ignore_ascii_case(keyword))
        });
        words.next()
    };
    Some(match on {
        Some(on) => format!("{operation} {on}"),
        None => operation,
    })
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn a_summary_says_what_is_done_to_what() {
        for (text, expected) in [
            (
                "SELECT user_id, email FROM users WHERE email = $1",
                "SELECT users",
            ),
            (
                "\n  insert into claims (claim_id) VALUES ($1)",
                "INSERT claims",
            ),
            ("UPDATE sales SET paused = $2", "UPDATE sales"),
            ("DELETE FROM sessions WHERE true", "DELETE sessions"),
            (
                "WITH due AS (SELECT 1 FROM claims) UPDATE claims SET x = 1",
                "WITH claims",
            ),
            ("SELECT 1", "SELECT"),
            ("BEGIN", "BEGIN"),
        ] {
            assert_eq!(summary(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(summary("  "), None);
    }
}
