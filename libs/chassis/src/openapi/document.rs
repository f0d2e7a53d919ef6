//! The document as JSON: what every operation has is added, several are merged, and it is written the same way each time.

use http::Method;
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        Object, OpenApi, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use super::{ACCESS_TOKEN, refusals};
use crate::problem::{self, Code, FieldError, common};

/// Marks an operation that answers the same `Idempotency-Key` the same.
pub(super) const IDEMPOTENT: &str = "x-idempotent";

/// The header, as people write it.
const KEY_NAME: &str = "Idempotency-Key";

/// An OpenAPI 3.1 document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(Value);

/// Why a document can't be read, or not merged with another.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It isn't JSON.
    #[error("read the document: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no object at this place.
    #[error("the document has no {0}")]
    Missing(&'static str),
    /// Both documents have it, and not alike.
    #[error("{0} is there twice")]
    Twice(String),
}

/// One operation of a document.
pub struct Operation<'a> {
    /// The path's template, as axum has it.
    pub path: &'a str,
    /// The method.
    pub method: Method,
    json: &'a mut Map<String, Value>,
}

impl Operation<'_> {
    /// Whether a token has to be there (`Some(true)`), or may be (`Some(false)`), or is not looked at.
    pub fn token(&self) -> Option<bool> {
        let ways = self.json.get("security")?.as_array()?;
        let named = ways.iter().any(|way| way.get(ACCESS_TOKEN).is_some());
        named.then(|| ways.iter().all(|way| way.get(ACCESS_TOKEN).is_some()))
    }

    /// Whether the same `Idempotency-Key` gets the same answer.
    pub fn is_keyed(&self) -> bool {
        self.json.contains_key(IDEMPOTENT)
    }

    /// Whether it looks at `Idempotency-Key` (`Some`), and whether it is refused without one.
    fn key(&self) -> Option<bool> {
        let parameters = self.json.get("parameters")?.as_array()?;
        let key = parameters
            .iter()
            .find(|parameter| parameter["name"] == KEY_NAME)?;
        Some(key["required"] == true)
    }

    /// Whether it takes a body.
    pub fn has_body(&self) -> bool {
        self.json.contains_key("requestBody")
    }

    /// Adds what it may be refused with besides.
    pub fn refused_with(&mut self, codes: &[Code]) {
        refusals::add(section(self.json, "responses"), codes);
    }

    /// What follows from what it takes, whoever serves it.
    fn complete(&mut self) {
        let mut codes = vec![common::INTERNAL, common::UNAVAILABLE, common::TIMED_OUT];
        let takes_parameters = self.json.contains_key("parameters");
        if takes_parameters || self.has_body() {
            codes.push(common::VALIDATION);
        }
        if self.has_body() {
            codes.extend([common::PAYLOAD_TOO_LARGE, common::UNSUPPORTED_MEDIA_TYPE]);
        }
        if self.token().is_some() {
            codes.push(common::UNAUTHENTICATED);
        }
        if let Some(required) = self.key() {
            codes.push(common::IDEMPOTENCY_KEY_INVALID);
            codes.extend(required.then_some(common::IDEMPOTENCY_KEY_MISSING));
        }
        if self.is_keyed() {
            codes.extend([
                common::IDEMPOTENCY_IN_FLIGHT,
                common::IDEMPOTENCY_KEY_REUSED,
            ]);
        }
        self.refused_with(&codes);
    }
}

impl Document {
    pub(super) fn from_openapi(openapi: OpenApi, title: &str) -> Self {
        let mut json = serde_json::to_value(openapi).expect("the document is plain data");
        json["info"] = json!({
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        });
        Self(json)
    }

    /// Reads what [`Document::to_json`] wrote.
    pub fn parse(json: &str) -> Result<Self, DocumentError> {
        let json: Value = serde_json::from_str(json)?;
        for part in ["paths", "components"] {
            if !json[part].is_object() {
                return Err(DocumentError::Missing(part));
            }
        }
        Ok(Self(json))
    }

    /// Indented, with every object's names in their order, so that the same document is the same text.
    pub fn to_json(&self) -> String {
        let sorted = sorted(&self.0);
        let mut json = serde_json::to_string_pretty(&sorted).expect("the document is plain data");
        json.push('\n');
        json
    }

    /// Sets what the document says of the whole.
    pub fn describe(&mut self, title: &str, description: &str) {
        self.0["info"]["title"] = json!(title);
        self.0["info"]["description"] = json!(description);
        // The page and the document are served by whom the operations are.
        self.0["servers"] = json!([{ "url": "/", "description": "Where this document is." }]);
    }

    /// Every operation, in the order of paths.
    pub fn operations(&mut self) -> impl Iterator<Item = Operation<'_>> {
        let paths = section(object(&mut self.0), "paths").iter_mut();
        paths.flat_map(|(path, item)| {
            object(item)
                .iter_mut()
                .filter_map(move |(method, operation)| {
                    Some(Operation {
                        path,
                        method: method.to_uppercase().parse().ok()?,
                        json: operation.as_object_mut()?,
                    })
                })
        })
    }

    /// Whether some operation is said to answer this code with its status.
    pub fn has_code(&mut self, code: Code) -> bool {
        self.operations().any(|operation| {
            let response = operation
                .json
                .get("responses")
                .and_then(|responses| responses.get(code.status().as_str()));
            let codes = response.and_then(refusals::codes);
            codes.is_some_and(|codes| codes.contains(&json!(code.as_str())))
        })
    }

    /// Takes in the paths and schemas of another document. What both have must be alike.
    pub fn merge(&mut self, other: Self) -> Result<(), DocumentError> {
        let Value::Object(mut other) = other.0 else {
            return Err(DocumentError::Missing("object"));
        };
        let mine = object(&mut self.0);
        let paths = section(mine, "paths");
        for (path, item) in std::mem::take(section(&mut other, "paths")) {
            if paths.insert(path.clone(), item).is_some() {
                return Err(DocumentError::Twice(path));
            }
        }
        let components = section(mine, "components");
        for (kind, named) in std::mem::take(section(&mut other, "components")) {
            let Value::Object(named) = named else {
                return Err(DocumentError::Missing("components"));
            };
            let known = section(components, &kind);
            for (name, component) in named {
                if known
                    .get(&name)
                    .is_some_and(|existing| *existing != component)
                {
                    return Err(DocumentError::Twice(format!("{kind}/{name}")));
                }
                known.insert(name, component);
            }
        }
        Ok(())
    }

    /// Adds what every document and every operation has.
    pub(super) fn complete(&mut self) {
        let components = section(object(&mut self.0), "components");
        let schemas = section(components, "schemas");
        let of_problems = [
            (problem::Body::name(), problem::Body::schema()),
            (FieldError::name(), FieldError::schema()),
        ];
        for (name, schema) in of_problems {
            let schema = serde_json::to_value(schema).expect("a schema is plain data");
            schemas.insert(name.into_owned(), schema);
        }
        section(components, "securitySchemes").insert(
            ACCESS_TOKEN.to_owned(),
            json!({
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The `accessToken` that `POST /v1/sessions` answers.",
            }),
        );
        for mut operation in self.operations() {
            operation.complete();
        }
    }
}

/// The header that a keyed POST takes.
pub(super) fn key_parameter(required: bool) -> Parameter {
    let text = Object::builder()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some(
            r#"^([!#-~]([ -~]*[!-~])?|"([ !#-\[\]-~]|\\["\\])+")$"#,
        ));
    ParameterBuilder::new()
        .name(KEY_NAME)
        .parameter_in(ParameterIn::Header)
        .required(if required { Required::True } else { Required::False })
        .description(Some(
            "The same key with the same request gets the same answer for a day, and has one effect. A random UUID will do.",
        ))
        .schema(Some(text))
        .build()
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    value
        .as_object_mut()
        .expect("documents are read and made with objects here")
}

/// The object of this name, which is there afterwards.
fn section<'a>(parent: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    object(parent.entry(name).or_insert_with(|| json!({})))
}

/// serde_json keeps names in their order or as they came, depending on who else is built with it.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut names: Vec<_> = map.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            let sorted = names
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)));
            Value::Object(sorted.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
