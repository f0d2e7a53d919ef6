//! The same search as the index's, by PostgreSQL alone.

use std::sync::Arc;

use money::Discount;
use uuid::Uuid;

use super::stays::{amenities, region};
use super::{Doing as _, Store, StoreError, impossible};
use crate::discounts::Sale;
use crate::search::{Hit, Offer, Order, Position, Query};
use crate::stay::{CHORD_SCALE, Card, Place, Point};

/// What the sales are bound to, by their rank: 1 is the first in the order of their ids.
#[derive(Default)]
struct Sales {
    ranks: Vec<i32>,
    percents: Vec<i64>,
    amounts: Vec<i64>,
    firsts: Vec<time::Date>,
    lasts: Vec<time::Date>,
    region_ranks: Vec<i32>,
    regions: Vec<String>,
    stay_ranks: Vec<i32>,
    stays: Vec<Uuid>,
    room_ranks: Vec<i32>,
    rooms: Vec<Uuid>,
}

impl Sales {
    fn of(sales: &[Arc<Sale>]) -> Self {
        let mut all = Self::default();
        for (rank, sale) in (1..).zip(sales) {
            let (percent, amount) = match sale.discount {
                Discount::Percent(percent) => (i64::from(percent.get()), 0),
                Discount::Amount(amount) => (0, amount.get()),
            };
            all.ranks.push(rank);
            all.percents.push(percent);
            all.amounts.push(amount);
            all.firsts.push(sale.first.sql());
            all.lasts.push(sale.last.sql());
            for region in &sale.regions {
                all.region_ranks.push(rank);
                all.regions.push(region.as_str().to_owned());
            }
            for stay in &sale.stays {
                all.stay_ranks.push(rank);
                all.stays.push(*stay);
            }
            for room in &sale.room_types {
                all.room_ranks.push(rank);
                all.rooms.push(*room);
            }
        }
        all
    }
}

/// A pattern of LIKE for words that have this part.
fn pattern(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for c in part.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

impl Store {
    /// The stays that a query finds while these sales are on, in its order.
    #[allow(clippy::too_many_lines)] // One statement.
    pub(crate) async fn search(
        &self,
        query: &Query,
        sales: &[Arc<Sale>],
    ) -> Result<Vec<Hit>, StoreError> {
        const DOING: &str = "search";
        let by = Sales::of(sales);
        let (order, from) = match query.order {
            Order::Price => (0, Point::default()),
            Order::Rating => (1, Point::default()),
            Order::Distance(from) => (2, from),
        };
        let after = query.after.unwrap_or(Position {
            key: i64::MIN,
            stay_no: i32::MIN,
        });
        let patterns: Vec<String> = query.words.iter().map(|word| pattern(word)).collect();
        let rows = sqlx::query!(
            r#"WITH candidate AS (
                 SELECT s.stay_no, s.stay_id, s.region, r.room_type_no, r.room_type_id
                 FROM stays s JOIN room_types r ON r.stay_no = s.stay_no
                 WHERE ($1::text IS NULL OR s.region = $1) AND r.capacity >= $2 AND s.amenities @> $3
                   AND s.search_text LIKE ALL ($4)
             ), night AS (
                 SELECT c.stay_no, c.room_type_no, n.night, n.price,
                     n.price - greatest(n.price::bigint * coalesce(n.own_percent, 0) / 100,
                         least(coalesce(n.own_amount, 0), n.price)) AS own_price
                 FROM candidate c JOIN nights n ON n.room_type_no = c.room_type_no
                 WHERE n.night >= $5 AND n.night < $5 + $6::integer
                   AND least(n.rooms_left, n.allotment) > 0 AND n.min_nights <= $6
             ), own AS (
                 SELECT stay_no, room_type_no, sum(price)::bigint AS original, sum(own_price)::bigint AS amount, 0 AS rank
                 FROM night GROUP BY stay_no, room_type_no HAVING count(*) = $6
             ), sale AS (
                 SELECT * FROM unnest($7::integer[], $8::bigint[], $9::bigint[], $10::date[], $11::date[])
                     AS sale (rank, percent, amount, first, last)
             ), covered AS (
                 SELECT c.room_type_no, t.rank FROM candidate c
                     JOIN unnest($12::integer[], $13::text[]) AS t (rank, region) ON t.region = c.region
                 UNION SELECT c.room_type_no, t.rank FROM candidate c
                     JOIN unnest($14::integer[], $15::uuid[]) AS t (rank, stay_id) ON t.stay_id = c.stay_id
                 UNION SELECT c.room_type_no, t.rank FROM candidate c
                     JOIN unnest($16::integer[], $17::uuid[]) AS t (rank, room_type_id) ON t.room_type_id = c.room_type_id
             ), offer AS (
                 SELECT * FROM own
                 UNION ALL
                 SELECT o.stay_no, o.room_type_no, o.original,
                     sum(CASE WHEN n.night BETWEEN sale.first AND sale.last
                         THEN least(n.own_price, n.price - greatest(n.price * sale.percent / 100,
                             least(sale.amount, n.price)))
                         ELSE n.own_price END)::bigint, sale.rank
                 FROM covered
                     JOIN own o ON o.room_type_no = covered.room_type_no
                     JOIN sale ON sale.rank = covered.rank
                     JOIN night n ON n.room_type_no = covered.room_type_no
                 GROUP BY o.stay_no, o.room_type_no, o.original, sale.rank
             ), room AS (
                 SELECT DISTINCT ON (room_type_no) * FROM offer ORDER BY room_type_no, amount, rank
             ), best AS (
                 SELECT DISTINCT ON (stay_no) * FROM room
                 WHERE (amount + $6 - 1) / $6 BETWEEN $18 AND $19
                 ORDER BY stay_no, amount, room_type_no
             ), listed AS (
                 SELECT s.*, b.room_type_no, b.original, b.amount, b.rank,
                     CASE $20::integer WHEN 0 THEN b.amount WHEN 1 THEN -s.rating::bigint
                         ELSE floor(((s.x - $21) * (s.x - $21) + (s.y - $22) * (s.y - $22)
                             + (s.z - $23) * (s.z - $23)) * $24)::bigint END AS key
                 FROM best b JOIN stays s ON s.stay_no = b.stay_no
             ), page AS (
                 SELECT * FROM listed WHERE (key, stay_no) > ($25, $26) ORDER BY key, stay_no LIMIT $27
             )
             SELECT p.stay_no, p.stay_id, p.name, p.name_en, p.region, p.latitude, p.longitude, p.amenities, p.rating,
                 p.reviews, p.original AS "original!", p.amount AS "amount!", p.rank AS "rank!", p.key AS "key!",
                 r.room_type_id
             FROM page p JOIN room_types r ON r.room_type_no = p.room_type_no
             ORDER BY p.key, p.stay_no"#,
            query.region.map(crate::stay::Region::as_str) as _,
            i16::try_from(query.guests).unwrap_or(i16::MAX),
            &query.amenities.names(),
            &patterns,
            query.nights.check_in().sql(),
            query.nights.count(),
            &by.ranks,
            &by.percents,
            &by.amounts,
            &by.firsts,
            &by.lasts,
            &by.region_ranks,
            &by.regions,
            &by.stay_ranks,
            &by.stays,
            &by.room_ranks,
            &by.rooms,
            query.min_price,
            query.max_price,
            order,
            from.x,
            from.y,
            from.z,
            CHORD_SCALE,
            after.key,
            after.stay_no,
            i64::try_from(query.limit).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.pool)
        .await
        .doing(DOING)?;
        rows.into_iter()
            .map(|row| {
                let rank = usize::try_from(row.rank).map_err(|_| impossible("a rank"))?;
                let card = Card {
                    stay_no: row.stay_no,
                    stay_id: row.stay_id,
                    name: row.name.into(),
                    name_en: row.name_en.into(),
                    region: region(&row.region)?,
                    place: Place::new(row.latitude, row.longitude)
                        .ok_or_else(|| impossible("a place"))?,
                    amenities: amenities(&row.amenities)?,
                    rating: u16::try_from(row.rating).map_err(|_| impossible("a rating"))?,
                    reviews: u32::try_from(row.reviews)
                        .map_err(|_| impossible("a number of reviews"))?,
                };
                Ok(Hit {
                    position: Position {
                        key: row.key,
                        stay_no: row.stay_no,
                    },
                    card: Arc::new(card),
                    room_type_id: row.room_type_id,
                    offer: Offer {
                        amount: row.amount,
                        original: row.original,
                        sale: rank
                            .checked_sub(1)
                            .and_then(|index| sales.get(index))
                            .map(|sale| Arc::clone(&sale.id)),
                    },
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .doing(DOING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_like_understands_is_taken_as_it_stands() {
        assert_eq!(pattern(r"50%_\a"), r"%50\%\_\\a%");
    }
}
