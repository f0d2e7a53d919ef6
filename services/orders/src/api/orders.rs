//! `/v1/orders`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::idempotency::Key;
use chassis::problem::{Problem, common};
use http::{StatusCode, header};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::body::{OrderBody, OrderWithHistory};
use crate::desk::Desk;
use crate::refunds::today_in_seoul;
use crate::stay::WishBody;

/// `POST /v1/orders`: 201 | 409 UNAVAILABLE | 404, 422 for what doesn't fit.
pub(super) async fn create(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    key: Option<Extension<Key>>,
    Json(body): Json<WishBody>,
) -> Result<impl IntoResponse, Problem> {
    let Extension(Key(key)) = key.ok_or_else(|| {
        common::IDEMPOTENCY_KEY_MISSING.problem("send an Idempotency-Key, such as a random UUID")
    })?;
    let wish = body
        .check(today_in_seoul(Timestamp::now()))
        .map_err(|(pointer, detail)| Problem::field(pointer, detail))?;
    let request_key = Sha256::digest(key).into();
    let order = desk.place(caller.user_id, request_key, &wish).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v1/orders/{}", order.order_id))],
        Json(OrderBody::from(order)),
    ))
}

/// `GET /v1/orders`: 200, the caller's, latest first.
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    page: PageQuery,
) -> Result<Json<Page<OrderBody>>, Problem> {
    let before: Option<Uuid> = page.cursor()?;
    let orders = desk.list(caller.user_id, before, page.limit()).await?;
    let page = page.page(orders, |last| last.order_id);
    Ok(Json(page.map(OrderBody::from)))
}

/// `GET /v1/orders/{orderId}`: 200 with the history | 404 ORDER_NOT_FOUND.
pub(super) async fn get(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(order_id): Path<Uuid>,
) -> Result<Json<OrderWithHistory>, Problem> {
    let (order, history) = desk.show(caller.user_id, order_id).await?;
    Ok(Json(OrderWithHistory::new(order, history)))
}

/// `POST /v1/orders/{orderId}/cancel`: 200 with the refund | 404 | 409 ORDER_NOT_CANCELLABLE.
pub(super) async fn cancel(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(order_id): Path<Uuid>,
) -> Result<Json<OrderBody>, Problem> {
    Ok(Json(desk.cancel(caller.user_id, order_id).await?.into()))
}
