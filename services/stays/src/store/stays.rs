//! Stays and room types.

use uuid::Uuid;

use super::changes::Change;
use super::{Doing as _, Store, StoreError, changes, impossible};
use crate::stay::{Amenities, Cancellation, Card, Place, Point, Region};

/// A stay to be.
#[derive(Debug)]
pub(crate) struct NewStay {
    pub(crate) stay_id: Uuid,
    pub(crate) host_id: Uuid,
    /// Of the request that makes it.
    pub(crate) request_key: Option<String>,
    pub(crate) name: String,
    pub(crate) name_en: String,
    pub(crate) description: String,
    pub(crate) region: Region,
    pub(crate) address: String,
    pub(crate) place: Place,
    pub(crate) amenities: Amenities,
    pub(crate) cancellation: Cancellation,
    pub(crate) search_text: String,
}

/// A stay as it is shown by itself.
#[derive(Debug)]
pub(crate) struct StayRow {
    pub(crate) card: Card,
    pub(crate) host_id: Uuid,
    pub(crate) description: String,
    pub(crate) address: String,
    pub(crate) cancellation: Cancellation,
}

/// A room type of a stay.
#[derive(Debug, Clone)]
pub(crate) struct RoomTypeRow {
    pub(crate) room_type_no: i32,
    pub(crate) room_type_id: Uuid,
    pub(crate) name: String,
    pub(crate) name_en: String,
    pub(crate) capacity: u16,
}

/// A room type to be.
#[derive(Debug)]
pub(crate) struct NewRoomType {
    pub(crate) room_type_id: Uuid,
    pub(crate) request_key: Option<String>,
    pub(crate) name: String,
    pub(crate) name_en: String,
    pub(crate) capacity: u16,
}

/// A room type with whose it is.
#[derive(Debug)]
pub(crate) struct OwnRoomType {
    pub(crate) room_type: RoomTypeRow,
    pub(crate) stay_id: Uuid,
    pub(crate) stay_name: String,
    pub(crate) host_id: Uuid,
    pub(crate) region: Region,
    pub(crate) cancellation: Cancellation,
}

/// A stay as it is searched.
#[derive(Debug)]
pub(crate) struct SearchedStay {
    pub(crate) card: Card,
    pub(crate) point: Point,
    pub(crate) search_text: String,
    /// Number, id and capacity.
    pub(crate) rooms: Vec<(i32, Uuid, u16)>,
}

/// A row of `stays` as all of the statements below read it.
struct RawStay {
    stay_no: i32,
    stay_id: Uuid,
    name: String,
    name_en: String,
    region: String,
    latitude: f64,
    longitude: f64,
    amenities: Vec<String>,
    rating: i16,
    reviews: i32,
}

impl RawStay {
    fn card(self) -> Result<Card, sqlx::Error> {
        Ok(Card {
            stay_no: self.stay_no,
            stay_id: self.stay_id,
            name: self.name.into(),
            name_en: self.name_en.into(),
            region: region(&self.region)?,
            place: Place::new(self.latitude, self.longitude)
                .ok_or_else(|| impossible("a place"))?,
            amenities: amenities(&self.amenities)?,
            rating: u16::try_from(self.rating).map_err(|_| impossible("a rating"))?,
            reviews: u32::try_from(self.reviews).map_err(|_| impossible("a number of reviews"))?,
        })
    }
}

pub(super) fn region(text: &str) -> Result<Region, sqlx::Error> {
    text.parse().map_err(|()| impossible("a region"))
}

pub(super) fn amenities(names: &[String]) -> Result<Amenities, sqlx::Error> {
    names
        .iter()
        .map(|name| name.parse().map_err(|()| impossible("an amenity")))
        .collect()
}

pub(super) fn capacity(capacity: i16) -> Result<u16, sqlx::Error> {
    u16::try_from(capacity).map_err(|_| impossible("a capacity"))
}

fn cancellation(text: &str) -> Result<Cancellation, sqlx::Error> {
    text.parse().map_err(|()| impossible("a cancellation"))
}

impl Store {
    /// Makes a stay, or finds the one that the same request made before; answers its id. Guards "one stay for each
    /// request": the unique index decides between attempts at once.
    pub(crate) async fn create_stay(&self, new: NewStay) -> Result<Uuid, StoreError> {
        const DOING: &str = "create a stay";
        let point = new.place.point();
        let mut tx = self.pool.begin().await.doing(DOING)?;
        let made = sqlx::query!(
            "INSERT INTO stays (stay_id, host_id, request_key, name, name_en, description, region, address, latitude,
                 longitude, x, y, z, amenities, cancellation, search_text)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
             ON CONFLICT (host_id, request_key) WHERE request_key IS NOT NULL DO NOTHING
             RETURNING stay_no",
            new.stay_id,
            new.host_id,
            new.request_key,
            new.name,
            new.name_en,
            new.description,
            new.region.as_str(),
            new.address,
            new.place.latitude,
            new.place.longitude,
            point.x,
            point.y,
            point.z,
            &new.amenities.names(),
            new.cancellation.as_str(),
            new.search_text,
        )
        .fetch_optional(&mut *tx)
        .await
        .doing(DOING)?;
        let Some(made) = made else {
            return sqlx::query_scalar!(
                "SELECT stay_id FROM stays WHERE host_id = $1 AND request_key = $2",
                new.host_id,
                new.request_key,
            )
            .fetch_one(&mut *tx)
            .await
            .doing(DOING);
        };
        changes::tell(&mut tx, Change::Stays(made.stay_no, made.stay_no))
            .await
            .doing(DOING)?;
        tx.commit().await.doing(DOING)?;
        Ok(new.stay_id)
    }

    /// Makes a room type of a stay, or finds the one that the same request made before; answers its id.
    pub(crate) async fn create_room_type(
        &self,
        stay_no: i32,
        new: NewRoomType,
    ) -> Result<Uuid, StoreError> {
        const DOING: &str = "create a room type";
        let mut tx = self.pool.begin().await.doing(DOING)?;
        let made = sqlx::query!(
            "INSERT INTO room_types (room_type_id, stay_no, request_key, name, name_en, capacity)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (stay_no, request_key) WHERE request_key IS NOT NULL DO NOTHING
             RETURNING room_type_no",
            new.room_type_id,
            stay_no,
            new.request_key,
            new.name,
            new.name_en,
            i16::try_from(new.capacity).unwrap_or(i16::MAX),
        )
        .fetch_optional(&mut *tx)
        .await
        .doing(DOING)?;
        if made.is_none() {
            return sqlx::query_scalar!(
                "SELECT room_type_id FROM room_types WHERE stay_no = $1 AND request_key = $2",
                stay_no,
                new.request_key,
            )
            .fetch_one(&mut *tx)
            .await
            .doing(DOING);
        }
        changes::tell(&mut tx, Change::Stays(stay_no, stay_no))
            .await
            .doing(DOING)?;
        tx.commit().await.doing(DOING)?;
        Ok(new.room_type_id)
    }

    pub(crate) async fn stay(&self, stay_id: Uuid) -> Result<Option<StayRow>, StoreError> {
        const DOING: &str = "read a stay";
        let row = sqlx::query!(
            "SELECT stay_no, stay_id, host_id, name, name_en, description, region, address, latitude, longitude,
                 amenities, cancellation, rating, reviews
             FROM stays WHERE stay_id = $1",
            stay_id,
        )
        .fetch_optional(&self.pool)
        .await
        .doing(DOING)?;
        row.map(|row| {
            Ok(StayRow {
                host_id: row.host_id,
                description: row.description,
                address: row.address,
                cancellation: cancellation(&row.cancellation)?,
                card: RawStay {
                    stay_no: row.stay_no,
                    stay_id: row.stay_id,
                    name: row.name,
                    name_en: row.name_en,
                    region: row.region,
                    latitude: row.latitude,
                    longitude: row.longitude,
                    amenities: row.amenities,
                    rating: row.rating,
                    reviews: row.reviews,
                }
                .card()?,
            })
        })
        .transpose()
        .doing(DOING)
    }

    /// In the order in which they were made.
    pub(crate) async fn room_types(&self, stay_no: i32) -> Result<Vec<RoomTypeRow>, StoreError> {
        const DOING: &str = "read a stay's room types";
        let rows = sqlx::query!(
            "SELECT room_type_no, room_type_id, name, name_en, capacity FROM room_types WHERE stay_no = $1
             ORDER BY room_type_no",
            stay_no,
        )
        .fetch_all(&self.pool)
        .await
        .doing(DOING)?;
        rows.into_iter()
            .map(|row| {
                Ok(RoomTypeRow {
                    room_type_no: row.room_type_no,
                    room_type_id: row.room_type_id,
                    name: row.name,
                    name_en: row.name_en,
                    capacity: capacity(row.capacity)?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .doing(DOING)
    }

    pub(crate) async fn room_type(
        &self,
        room_type_id: Uuid,
    ) -> Result<Option<OwnRoomType>, StoreError> {
        const DOING: &str = "read a room type";
        let row = sqlx::query!(
            "SELECT r.room_type_no, r.room_type_id, r.name, r.name_en, r.capacity, s.stay_id, s.name AS stay_name,
                 s.host_id, s.region, s.cancellation
             FROM room_types r JOIN stays s ON s.stay_no = r.stay_no WHERE r.room_type_id = $1",
            room_type_id,
        )
        .fetch_optional(&self.pool)
        .await
        .doing(DOING)?;
        row.map(|row| {
            Ok(OwnRoomType {
                room_type: RoomTypeRow {
                    room_type_no: row.room_type_no,
                    room_type_id: row.room_type_id,
                    name: row.name,
                    name_en: row.name_en,
                    capacity: capacity(row.capacity)?,
                },
                stay_id: row.stay_id,
                stay_name: row.stay_name,
                host_id: row.host_id,
                region: region(&row.region)?,
                cancellation: cancellation(&row.cancellation)?,
            })
        })
        .transpose()
        .doing(DOING)
    }

    /// The stays with these numbers, as they are searched, and their room types. In the order of their numbers.
    pub(crate) async fn searched_stays(
        &self,
        first: i32,
        last: i32,
    ) -> Result<Vec<SearchedStay>, StoreError> {
        const DOING: &str = "read stays for searches";
        let rows = sqlx::query!(
            r#"SELECT s.stay_no, s.stay_id, s.name, s.name_en, s.region, s.latitude, s.longitude, s.x, s.y, s.z,
                 s.amenities, s.rating, s.reviews, s.search_text,
                 coalesce(r.nos, '{}') AS "nos!", coalesce(r.ids, '{}') AS "ids!",
                 coalesce(r.capacities, '{}') AS "capacities!"
             FROM stays s LEFT JOIN (
                 SELECT stay_no, array_agg(room_type_no ORDER BY room_type_no) AS nos,
                     array_agg(room_type_id ORDER BY room_type_no) AS ids,
                     array_agg(capacity ORDER BY room_type_no) AS capacities
                 FROM room_types WHERE stay_no BETWEEN $1 AND $2 GROUP BY stay_no
             ) r ON r.stay_no = s.stay_no
             WHERE s.stay_no BETWEEN $1 AND $2 ORDER BY s.stay_no"#,
            first,
            last,
        )
        .fetch_all(&self.pool)
        .await
        .doing(DOING)?;
        rows.into_iter()
            .map(|row| {
                let capacities = row.capacities.into_iter().map(capacity);
                let capacities: Vec<u16> = capacities.collect::<Result<_, _>>()?;
                let rooms = row.nos.into_iter().zip(row.ids).zip(capacities);
                Ok(SearchedStay {
                    point: Point {
                        x: row.x,
                        y: row.y,
                        z: row.z,
                    },
                    search_text: row.search_text,
                    rooms: rooms
                        .map(|((no, id), capacity)| (no, id, capacity))
                        .collect(),
                    card: RawStay {
                        stay_no: row.stay_no,
                        stay_id: row.stay_id,
                        name: row.name,
                        name_en: row.name_en,
                        region: row.region,
                        latitude: row.latitude,
                        longitude: row.longitude,
                        amenities: row.amenities,
                        rating: row.rating,
                        reviews: row.reviews,
                    }
                    .card()?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .doing(DOING)
    }

    /// The highest number that a stay has; 0 without any.
    pub(crate) async fn last_stay_no(&self) -> Result<i32, StoreError> {
        sqlx::query_scalar!(r#"SELECT coalesce(max(stay_no), 0) AS "last!" FROM stays"#)
            .fetch_one(&self.pool)
            .await
            .doing("find the last stay")
    }
}
