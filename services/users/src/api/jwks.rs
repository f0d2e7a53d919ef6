//! The keys that access tokens are checked by.
//!
//! A key is changed in three roll-outs, so that no token is ever refused by somebody who has not heard of its key:
//! 1. the new key is put in `QUOKKA_PREVIOUS_KEY_FILE`: published, not used yet;
//! 2. the two files are swapped: the new key signs, the old one is still published;
//! 3. once the last token of the old key is over (`QUOKKA_ACCESS_TOKEN_TTL`), the second file is left out.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use chassis::http::Json;
use http::header;

use crate::identity::Identity;

/// `GET /.well-known/jwks.json`: 200. May be kept for a minute.
pub(crate) async fn show(State(identity): State<Arc<Identity>>) -> impl IntoResponse {
    (
        [(header::CACHE_CONTROL, "public, max-age=60")],
        Json(identity.tokens.jwks().clone()),
    )
}
