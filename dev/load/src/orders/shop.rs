//! A stay with rooms to sell, the sales that lower its price, and how guests and the payment window are asked.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::Method;
use hyper::header::HeaderValue;
use jiff::civil::Date;
use jiff::tz::{TimeZone, offset};
use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ALLOTMENT, NIGHT};
use crate::e2e::{PATIENCE, TIMEOUT, open_sale, wait_until_open};
use crate::guests::{Guest, TokenSigner};
use crate::http::{Call, Connection};
use crate::platform::{Declaration, Declared, Kind, Platform};

/// No sample sale lowers prices there.
pub(super) const REGION: &str = "busan";

/// Check-in is so many days from now: a guest who cancels gets all of it back.
pub(super) const AHEAD_DAYS: i64 = 30;

/// Time-sale claims last longer than the run.
const CLAIM_TTL: &str = "30m";

/// How often a guest looks again.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The day in Seoul.
pub(super) fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::fixed(offset(9))).date()
}

/// A field that is a text.
pub(super) fn text(of: &Value, name: &str) -> anyhow::Result<String> {
    let text = of[name].as_str().map(str::to_owned);
    text.with_context(|| format!("no {name} in {of}"))
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Told {
    asked: String,
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Told {
    /// The body, which came with this status.
    pub(super) fn is(self, status: u16) -> anyhow::Result<Value> {
        let Self {
            asked,
            status: told,
            body,
        } = self;
        ensure!(
            told == status,
            "{asked}: {told} instead of {status}: {body}"
        );
        Ok(body)
    }

    /// It is this problem.
    pub(super) fn refused(self, status: u16, code: &str) -> anyhow::Result<()> {
        let asked = self.asked.clone();
        let body = self.is(status)?;
        ensure!(body["code"] == code, "{asked}: {body} instead of {code}");
        Ok(())
    }
}

async fn ask(
    at: SocketAddr,
    method: Method,
    path: &str,
    more: impl FnOnce(Call) -> Call,
    body: Option<&Value>,
) -> anyhow::Result<Told> {
    ask_by(&mut Connection::new(at), method, path, more, body).await
}

/// Asks by a connection that is there.
pub(super) async fn ask_by(
    connection: &mut Connection,
    method: Method,
    path: &str,
    more: impl FnOnce(Call) -> Call,
    body: Option<&Value>,
) -> anyhow::Result<Told> {
    let asked = format!("{method} {path}");
    let call = more(Call {
        method,
        body: body.map(|body| body.to_string().into()).unwrap_or_default(),
        ..Call::post(path.parse()?, None)
    });
    let answer = match connection.send(&call, TIMEOUT).await {
        Ok(answer) => answer,
        Err(no) => bail!("{asked}: no answer ({no:?})"),
    };
    Ok(Told {
        asked,
        status: answer.status.as_u16(),
        body: serde_json::from_slice(&answer.body).unwrap_or_default(),
    })
}

/// A guest, or host, on the platform.
pub(super) struct Guided<'a> {
    platform: &'a Platform,
    authorization: HeaderValue,
}

impl<'a> Guided<'a> {
    pub(super) fn new(shop: &Shop<'a>, guest: &Guest) -> Self {
        Self::on(shop.platform, guest)
    }

    pub(super) fn on(platform: &'a Platform, guest: &Guest) -> Self {
        Self {
            platform,
            authorization: guest.authorization.clone(),
        }
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<Uuid>,
        body: Option<&Value>,
    ) -> anyhow::Result<Told> {
        let key = key.map(|key| HeaderValue::from_str(&key.to_string()));
        let key = key.transpose()?;
        let more = |call| Call {
            authorization: Some(self.authorization.clone()),
            key,
            ..call
        };
        ask(self.platform.api, method, path, more, body).await
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Told> {
        self.ask(Method::GET, path, None, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Told> {
        self.ask(Method::POST, path, None, body).await
    }

    /// A POST that makes something new.
    pub(super) async fn create(&self, path: &str, body: &Value) -> anyhow::Result<Told> {
        self.create_by(Uuid::new_v4(), path, body).await
    }

    /// A POST that makes something once for the key.
    pub(super) async fn create_by(
        &self,
        key: Uuid,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Told> {
        self.ask(Method::POST, path, Some(key), Some(body)).await
    }

    /// As the page does that the payment window leads back to.
    pub(super) async fn confirm(
        &self,
        key: &str,
        order: &str,
        amount: i64,
    ) -> anyhow::Result<Told> {
        let body = json!({"paymentKey": key, "orderId": order, "amount": amount});
        self.post("/v1/payments/confirm", Some(&body)).await
    }

    /// Looks at something until it is as wanted.
    pub(super) async fn until(
        &self,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut seen = Value::Null;
        let what = format!("{path} is as it should be");
        let waited = self.platform.until(&what, PATIENCE, async || {
            seen = self.get(path).await?.is(200)?;
            Ok(wanted(&seen))
        });
        let waited = waited.await;
        waited.with_context(|| format!("{path} is {seen}"))?;
        Ok(seen)
    }

    pub(super) async fn until_status(&self, path: &str, status: &str) -> anyhow::Result<Value> {
        self.until(path, |it| it["status"] == status).await
    }
}

/// The simulated payment gateway.
pub(super) struct Toss {
    pub(super) at: SocketAddr,
}

impl Toss {
    /// What the guest does in the payment window; the payment key.
    pub(super) async fn session(&self, order: &str, amount: i64) -> anyhow::Result<String> {
        let body = json!({"orderId": order, "amount": amount});
        let path = "/simulator/sessions";
        let told = ask(self.at, Method::POST, path, |call| call, Some(&body)).await?;
        text(&told.is(201)?, "paymentKey")
    }

    /// What was taken by a payment, less what went back.
    pub(super) async fn held(&self, key: &str) -> anyhow::Result<i64> {
        self.held_by(&mut Connection::new(self.at), key).await
    }

    /// The same, by a connection that is there.
    pub(super) async fn held_by(
        &self,
        connection: &mut Connection,
        key: &str,
    ) -> anyhow::Result<i64> {
        let path = format!("/simulator/payments/{key}");
        let told = ask_by(connection, Method::GET, &path, |call| call, None).await?;
        let payment = told.is(200)?;
        if payment["approvedAt"].is_null() {
            return Ok(0);
        }
        let balance = payment["balanceAmount"].as_i64();
        balance.with_context(|| format!("no balanceAmount in {payment}"))
    }

    pub(super) async fn holds(&self, key: &str, amount: i64) -> anyhow::Result<()> {
        let held = self.held(key).await?;
        ensure!(
            held == amount,
            "of the payment {key} the gateway holds {held} KRW instead of {amount}"
        );
        Ok(())
    }
}

/// Two room types of one stay, [`ALLOTMENT`] rooms each, a time sale and a coupon campaign with a tenth off each.
pub(super) struct Shop<'a> {
    pub(super) platform: &'a Platform,
    pub(super) toss: Toss,
    pub(super) signer: TokenSigner,
    pub(super) room_type: String,
    /// The rooms that many want.
    pub(super) last_rooms: String,
    pub(super) sale: Declared,
    pub(super) campaign: Declared,
    stay: String,
    /// What only this stay is called.
    name: String,
    check_in: Date,
    check_out: Date,
}

impl<'a> Shop<'a> {
    pub(super) async fn open(platform: &'a Platform, toss: SocketAddr) -> anyhow::Result<Self> {
        let signer = platform.token_signer().await?;
        let host = Guided::on(platform, &signer.somebody(&["host"])?);
        let today = day(Timestamp::now());
        let check_in = today.checked_add(Span::new().days(AHEAD_DAYS))?;
        let check_out = check_in.checked_add(Span::new().days(2))?;
        let name = format!("e2e{}", &Uuid::new_v4().simple().to_string()[..12]);
        let stay = json!({
            "name": name, "region": REGION, "lat": 35.16, "lng": 129.16, "amenities": ["wifi"],
            "cancellation": "MODERATE",
        });
        let stay = host.create("/v1/stays", &stay).await?.is(201)?;
        let stay = text(&stay, "id")?;
        // From today on: one guest comes tonight.
        let days = today.series(Span::new().days(1));
        let nights: Vec<Value> = days
            .take_while(|night| *night < check_out)
            .map(|night| json!({"date": night, "price": NIGHT, "allotment": ALLOTMENT}))
            .collect();
        let mut room_types = Vec::new();
        for name in ["Room", "Last room"] {
            let body = json!({"name": name, "capacity": 2});
            let path = format!("/v1/stays/{stay}/room-types");
            let room_type = host.create(&path, &body).await?.is(201)?;
            let room_type = text(&room_type, "id")?;
            let path = format!("/v1/room-types/{room_type}/calendar");
            let calendar = json!({"nights": nights});
            let put = host.ask(Method::PUT, &path, None, Some(&calendar));
            put.await?.is(200)?;
            room_types.push(room_type);
        }
        let [room_type, last_rooms] = <[String; 2]>::try_from(room_types).unwrap_or_default();
        let sale = Declaration {
            region: REGION,
            ..open_sale(Kind::TimeSale, ALLOTMENT, CLAIM_TTL)
        };
        let sale = platform.declare(sale).await?;
        let campaign = open_sale(Kind::CouponCampaign, ALLOTMENT, "");
        let campaign = platform.declare(campaign).await?;
        for declared in [&sale, &campaign] {
            wait_until_open(platform, declared).await?;
        }
        let shop = Self {
            platform,
            toss: Toss { at: toss },
            signer,
            room_type,
            last_rooms,
            sale,
            campaign,
            stay,
            name,
            check_in,
            check_out,
        };
        for room_type in [&shop.room_type, &shop.last_rooms] {
            shop.until_held(room_type).await?;
        }
        Ok(shop)
    }

    /// Takes the sales away; the stay goes out of sight by itself, since its nights pass.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        for declared in [&self.sale, &self.campaign] {
            self.platform.remove(declared).await?;
        }
        Ok(())
    }

    /// Two nights for two.
    pub(super) fn wish(&self, room_type: &str) -> Value {
        json!({"roomTypeId": room_type, "checkIn": self.check_in, "checkOut": self.check_out, "guests": 2})
    }

    /// Waits until booking has heard of the rooms: a guest tries, and cancels.
    async fn until_held(&self, room_type: &str) -> anyhow::Result<()> {
        let guest = Guided::new(self, &self.signer.guest()?);
        let what = "rooms just offered can be held";
        let held = self.platform.until(what, PATIENCE, async || {
            let order = guest.create("/v1/orders", &self.wish(room_type)).await?;
            let path = format!("/v1/orders/{}", text(&order.is(201)?, "orderId")?);
            let decided = guest.until(&path, |order| order["status"] != "PENDING");
            if decided.await?["status"] != "AWAITING_PAYMENT" {
                return Ok(false);
            }
            let cancel = format!("{path}/cancel");
            guest.post(&cancel, None).await?.is(200)?;
            Ok(true)
        });
        held.await?;
        self.until_left(&guest, room_type, ALLOTMENT).await
    }

    /// Searches as a guest does, and reads the stay that was found.
    pub(super) async fn is_found_with_its_lowest_price(
        &self,
        guest: &Guided<'_>,
    ) -> anyhow::Result<()> {
        let search = format!(
            "/v1/stays?region={REGION}&checkIn={}&checkOut={}&guests=2&q={}",
            self.check_in, self.check_out, self.name
        );
        let found = |page: &Value| {
            let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
            let price = |item: &Value| {
                item["lowestPrice"]["amount"] == 2 * NIGHT * 9 / 10
                    && item["lowestPrice"]["originalAmount"] == 2 * NIGHT
                    && item["lowestPrice"]["discount"]["kind"] == "TIME_SALE"
            };
            matches!(items, [item] if item["id"] == *self.stay && price(item))
        };
        guest.until(&search, found).await?;
        let stay = guest.get(&format!("/v1/stays/{}", self.stay)).await?;
        let stay = stay.is(200)?;
        let room_types = stay["roomTypes"].as_array().map_or(0, Vec::len);
        ensure!(
            stay["name"] == *self.name && room_types == 2,
            "the stay that was found is {stay}"
        );
        Ok(())
    }

    /// Waits until guests see so many rooms left on both nights.
    pub(super) async fn until_left(
        &self,
        guest: &Guided<'_>,
        room_type: &str,
        left: usize,
    ) -> anyhow::Result<()> {
        let last = self.check_out.yesterday()?;
        let path = format!(
            "/v1/stays/{}/availability?from={}&to={last}",
            self.stay, self.check_in
        );
        let seen = |availability: &Value| {
            let of = availability["roomTypes"].as_array();
            let of = of.and_then(|all| all.iter().find(|of| of["id"] == *room_type));
            let nights = of.and_then(|of| of["nights"].as_array());
            nights.is_some_and(|nights| {
                nights.len() == 2 && nights.iter().all(|night| night["roomsLeft"] == left)
            })
        };
        guest.until(&path, seen).await?;
        Ok(())
    }
}
