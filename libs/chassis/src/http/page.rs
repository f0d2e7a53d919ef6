//! Paging: opaque cursors, no totals.

use axum::extract::FromRequestParts;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::request::Parts;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};

use super::Query;
use crate::problem::Problem;

/// How many items a page has when the caller doesn't say.
pub const PAGE_SIZE_DEFAULT: u32 = 20;
/// How many items a page has at most.
pub const PAGE_SIZE_MAX: u32 = 100;

/// Which page of a list is asked for: `?pageSize&pageToken`, and nothing else.
///
/// A list with filters has a query type of its own with these two fields, and makes this with [`PageQuery::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    size: u32,
    token: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RawPageQuery {
    /// How many items to answer at most.
    #[param(minimum = 1, maximum = 100, default = 20, nullable = false)]
    page_size: Option<u32>,
    /// The `nextPageToken` of the page before.
    #[param(nullable = false)]
    page_token: Option<String>,
}

impl IntoParams for PageQuery {
    fn into_params(provider: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        RawPageQuery::into_params(provider)
    }
}

impl PageQuery {
    /// Checks what the caller gave: a size from 1 to [`PAGE_SIZE_MAX`].
    pub fn new(page_size: Option<u32>, page_token: Option<String>) -> Result<Self, Problem> {
        let size = page_size.unwrap_or(PAGE_SIZE_DEFAULT);
        if !(1..=PAGE_SIZE_MAX).contains(&size) {
            return Err(Problem::parameter(
                "pageSize",
                format!("is not from 1 to {PAGE_SIZE_MAX}"),
            ));
        }
        Ok(Self {
            size,
            token: page_token.filter(|token| !token.is_empty()),
        })
    }

    /// How many items to answer at most.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How many rows to read: one more than the page has, which tells whether there is a next one.
    pub fn limit(&self) -> i64 {
        i64::from(self.size) + 1
    }

    /// Where the page starts: the cursor that the page before it ended with. A token that isn't ours is 400.
    pub fn cursor<C: DeserializeOwned>(&self) -> Result<Option<C>, Problem> {
        self.token.as_deref().map(decode_cursor).transpose()
    }

    /// The page of rows that were read with [`PageQuery::limit`]; `cursor` says where the next page starts, from
    /// the last row of this one.
    pub fn page<T, C: Serialize>(&self, mut rows: Vec<T>, cursor: impl FnOnce(&T) -> C) -> Page<T> {
        let more = rows.len() > self.size as usize;
        rows.truncate(self.size as usize);
        let next_page_token = rows
            .last()
            .filter(|_| more)
            .map(|last| encode_cursor(&cursor(last)));
        Page {
            items: rows,
            next_page_token,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(RawPageQuery {
            page_size,
            page_token,
        }) = Query::from_request_parts(parts, state).await?;
        Self::new(page_size, page_token)
    }
}

/// One page of a list, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// What to ask for the next page with; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(nullable = false)]
    pub next_page_token: Option<String>,
}

impl<T> Page<T> {
    /// The same page with each item made into another.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            next_page_token: self.next_page_token,
        }
    }
}

/// Makes a cursor opaque: nobody should build one or read it.
pub fn encode_cursor(cursor: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(cursor).expect("a cursor is plain data"))
}

/// Reads a cursor back; anything that [`encode_cursor`] didn't make is 400.
pub fn decode_cursor<C: DeserializeOwned>(token: &str) -> Result<C, Problem> {
    BASE64_URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| Problem::parameter("pageToken", "is not a token that this list has given"))
}
