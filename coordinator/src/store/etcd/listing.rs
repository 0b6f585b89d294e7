//! All rows, page by page at one revision.

use std::collections::HashMap;

use etcd_client::{GetOptions, GetResponse, KeyValue};
use gapless_platform::retry::Policy;
use tracing::warn;

use super::{
    Etcd,
    limits::{ASK_AGAIN, CALL_TIMEOUT, LISTINGS, PAGE_TIMEOUT, PART_KEYS_PER_PAGE, PARTS_PER_PAGE, ROWS_PER_PAGE},
    members::CallError,
    neighbours::{LEASES, Leases},
    values::{self, Value},
};

/// What ends a prefix of keys: the prefix with its last byte one higher.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl Etcd {
    /// The rows as they were at one revision. When that is compacted before the last page is read, the
    /// listing begins anew.
    pub(super) async fn list_rows(&self, policy: Policy) -> Result<Vec<(String, Vec<u8>)>, CallError> {
        let mut listings = 1;
        loop {
            match self.list_once(policy).await {
                Err(CallError::Compacted { .. }) if listings < LISTINGS => {
                    warn!("the rows were compacted while they were read; reading them again");
                    listings += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// One row of those that are small enough to stand by themselves.
    pub(super) async fn read_row(&self, key: &str, policy: Policy) -> Result<Option<Vec<u8>>, CallError> {
        let key = self.keys.row(key);
        let found = self.members.again(policy, CALL_TIMEOUT, &self.stop, |mut member| {
            let key = key.clone();
            async move { member.kv.get(key, None).await }
        });
        let found = found.await?;
        let Some(row) = found.kvs().first() else {
            return Ok(None);
        };
        match values::read(row.value()) {
            Some(Value::Whole(value)) => Ok(Some(value.to_vec())),
            Some(Value::Parts { .. }) | None => Err(self.unreadable(row.key(), "its value is of an unknown form")),
        }
    }

    fn unreadable(&self, key: &[u8], reason: &str) -> CallError {
        CallError::Refused {
            endpoint: self.members.names(),
            reason: format!("{}: {reason}", String::from_utf8_lossy(key)),
        }
    }

    async fn list_once(&self, policy: Policy) -> Result<Vec<(String, Vec<u8>)>, CallError> {
        let (rows, revision) = self.pages(&self.keys.rows, ROWS_PER_PAGE, 0, policy).await?;
        let (parts, _) = self.pages(&self.keys.parts, PARTS_PER_PAGE, revision, policy).await?;
        let parts: HashMap<&[u8], &KeyValue> = parts.iter().map(|kv| (kv.key(), kv)).collect();
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let key = row.key_str().ok().and_then(|key| key.strip_prefix(&self.keys.rows));
            let key = key.ok_or_else(|| self.unreadable(row.key(), "the key is not text"))?;
            let value = match values::read(row.value()) {
                Some(Value::Whole(value)) => value.to_vec(),
                Some(Value::Parts { name, count }) => {
                    let mut value = Vec::new();
                    for number in 0..count {
                        let part = format!("{}{}", self.keys.parts, values::part_key(name, number));
                        let part = parts.get(part.as_bytes());
                        let part = part.ok_or_else(|| self.unreadable(row.key(), "a part of its value is missing"))?;
                        value.extend_from_slice(part.value());
                    }
                    value
                }
                None => return Err(self.unreadable(row.key(), "its value is of an unknown form")),
            };
            found.push((key.to_string(), value));
        }
        Ok(found)
    }

    /// The leases that there are. Where they cannot be read now, they are not known.
    pub(super) async fn read_leases(&self) -> Leases {
        let prefix = self.keys.row(LEASES);
        match self.keys(&prefix, PART_KEYS_PER_PAGE, ASK_AGAIN).await {
            Ok((keys, _)) => Leases::read(keys.iter().filter_map(|key| {
                let key = key.strip_prefix(&self.keys.rows)?;
                Some(key.to_string())
            })),
            Err(error) => {
                warn!(%error, "the leases could not be read; each is written for itself");
                Leases::default()
            }
        }
    }

    /// All keys of a prefix without their values, and the present revision.
    pub(super) async fn keys(
        &self,
        prefix: &str,
        per_page: usize,
        policy: Policy,
    ) -> Result<(Vec<String>, i64), CallError> {
        let (found, revision) = self.read_pages(prefix, per_page, 0, true, policy).await?;
        let keys = found.iter().filter_map(|kv| kv.key_str().ok().map(str::to_string));
        Ok((keys.collect(), revision))
    }

    /// All keys of a prefix, in order, and the revision at which they were read: `at`, or the present
    /// one where that is 0.
    pub(super) async fn pages(
        &self,
        prefix: &str,
        per_page: usize,
        at: i64,
        policy: Policy,
    ) -> Result<(Vec<KeyValue>, i64), CallError> {
        self.read_pages(prefix, per_page, at, false, policy).await
    }

    async fn read_pages(
        &self,
        prefix: &str,
        per_page: usize,
        at: i64,
        keys_only: bool,
        policy: Policy,
    ) -> Result<(Vec<KeyValue>, i64), CallError> {
        let (mut from, mut revision) = (prefix.as_bytes().to_vec(), at);
        let mut found = Vec::new();
        loop {
            let options = GetOptions::new()
                .with_range(end_of(prefix))
                .with_limit(per_page as i64)
                .with_revision(revision);
            let options = match keys_only {
                true => options.with_keys_only(),
                false => options,
            };
            let page = self.members.again(policy, PAGE_TIMEOUT, &self.stop, |mut member| {
                let (from, options) = (from.clone(), options.clone());
                async move { member.kv.get(from, Some(options)).await }
            });
            let mut page: GetResponse = page.await?;
            if revision == 0 {
                revision = page.header().map_or(0, |header| header.revision());
            }
            let more = page.more();
            found.append(&mut page.take_kvs());
            match found.last() {
                Some(last) if more => from = [last.key(), &[0]].concat(),
                _ => return Ok((found, revision)),
            }
        }
    }
}
