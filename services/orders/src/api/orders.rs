//! `/v1/orders`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::idempotency::Key;
use chassis::problem::{Problem, common};
use chassis::refusals;
use http::{StatusCode, header};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::body::{OrderBody, OrderWithHistory};
use super::problems;
use crate::desk::Desk;
use crate::refunds::today_in_seoul;
use crate::stay::WishBody;

refusals! {
    CreateRefusals: problems::NO_ROOM, problems::ROOM_TYPE_NOT_FOUND, problems::COUPON_NOT_FOUND,
        problems::CLAIM_NOT_FOUND, problems::TOO_MANY_GUESTS, problems::COUPON_NOT_APPLICABLE,
        problems::CLAIM_NOT_APPLICABLE;
    GetRefusals: problems::ORDER_NOT_FOUND;
    CancelRefusals: problems::ORDER_NOT_FOUND, problems::ORDER_NOT_CANCELLABLE;
}

/// Orders nights of a room type.
///
/// The order is `PENDING` until its room is held, and `AWAITING_PAYMENT` then. Not paid by `expiresAt`, it expires.
#[utoipa::path(post, path = "/v1/orders", operation_id = "createOrder", tag = "Orders",
    security(("accessToken" = [])),
    request_body = WishBody,
    responses((status = 201, description = "The order is taken.", body = OrderBody,
        headers(("Location" = String, description = "Where it is read."))), CreateRefusals))]
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

/// Lists the caller's orders, the latest first.
#[utoipa::path(get, path = "/v1/orders", operation_id = "listOrders", tag = "Orders",
    security(("accessToken" = [])),
    params(PageQuery),
    responses((status = 200, description = "A page of orders.", body = Page<OrderBody>)))]
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

/// Reads one of the caller's orders, with all that happened to it.
#[utoipa::path(get, path = "/v1/orders/{orderId}", operation_id = "readOrder", tag = "Orders",
    security(("accessToken" = [])),
    params(("orderId" = Uuid, Path, description = "The order's id.")),
    responses((status = 200, description = "The order with its history.", body = OrderWithHistory), GetRefusals))]
pub(super) async fn get(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(order_id): Path<Uuid>,
) -> Result<Json<OrderWithHistory>, Problem> {
    let (order, history) = desk.show(caller.user_id, order_id).await?;
    Ok(Json(OrderWithHistory::new(order, history)))
}

/// Cancels an order.
///
/// Asked again, the same. What was paid goes back: all of it until the day before check-in, and on that day by the
/// stay's policy.
#[utoipa::path(post, path = "/v1/orders/{orderId}/cancel", operation_id = "cancelOrder", tag = "Orders",
    security(("accessToken" = [])),
    params(("orderId" = Uuid, Path, description = "The order's id.")),
    responses((status = 200, description = "It is cancelled; `refund` tells what goes back.", body = OrderBody),
        CancelRefusals))]
pub(super) async fn cancel(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(order_id): Path<Uuid>,
) -> Result<Json<OrderBody>, Problem> {
    Ok(Json(desk.cancel(caller.user_id, order_id).await?.into()))
}
