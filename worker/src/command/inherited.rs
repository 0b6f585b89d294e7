//! Which variables of the worker's environment a program gets.

/// Variables of ours: settings, and the token among them. A program gets those that are made for it.
const OWN: &str = "GAPLESS_";
/// What the clients of object stores take credentials from begins with these.
const STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
/// Words of a name, between underscores, that tell a secret.
const SECRETS: [&str; 12] = [
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "PWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "KEY",
    "APIKEY",
    "PGPASSWORD",
];
/// The folder that a shell is in.
const FOLDER: &str = "PWD";

/// A worker's variables but for those that may hold secrets; of these, the ones that its setting `program_variables` names.
///
/// It keeps secrets from programs that print or send on their environment unasked. A program runs as the worker's user
/// and can read what that user can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    named: Vec<String>,
}

impl Inherited {
    /// `named`: names of variables; with `*` at the end, of all that begin so.
    pub fn with(named: Vec<String>) -> Inherited {
        Inherited { named }
    }

    pub fn passes(&self, name: &str, value: &str) -> bool {
        if name.starts_with(OWN) {
            return false;
        }
        let is_named = |known: &String| match known.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == known,
        };
        let upper = name.to_ascii_uppercase();
        let is_secret = |word: &str| SECRETS.contains(&word) && name != FOLDER;
        let may_be_secret = STORES.iter().any(|store| upper.starts_with(store))
            || upper.split('_').any(is_secret)
            || has_password(value);
        !may_be_secret || self.named.iter().any(is_named)
    }
}

/// Whether an address in a text has a password: `postgres://etl:secret@db/sales`.
fn has_password(value: &str) -> bool {
    let addresses = value.match_indices("://").map(|(at, sign)| &value[at + sign.len()..]);
    addresses.into_iter().any(|rest| {
        let end = rest.find(['/', '?', '#', ' ', ',']).unwrap_or(rest.len());
        let user = rest[..end].rsplit_once('@').map(|(user, _)| user);
        user.and_then(|user| user.split_once(':'))
            .is_some_and(|(_, password)| !password.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_passed_where_they_are_named() {
        let check = |named: &[&str], name: &str, passes: bool| {
            let inherited = Inherited::with(named.iter().map(|name| name.to_string()).collect());
            assert_eq!(inherited.passes(name, "1"), passes, "{name} with {named:?}");
        };
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "TZ",
            "PYTHONPATH",
            "KEYBOARD",
            "http_proxy",
            "MONKEY",
            "PWD",
            "COMPASS",
        ] {
            check(&[], name, true);
        }
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "PGPASSWORD",
            "VAULT_TOKEN",
            "OPENAI_API_KEY",
            "db_password",
            "MYSQL_PWD",
            "DB_PASS",
        ] {
            check(&[], name, false);
            check(&[name], name, true);
        }
        check(&["AWS_*"], "AWS_SESSION_TOKEN", true);
        check(&["AWS_*"], "VAULT_TOKEN", false);
        check(&["AWS_SESSION"], "AWS_SESSION_TOKEN", false);
        let address = |value: &str| Inherited::default().passes("DATABASE_URL", value);
        assert!(address("postgres://db:5432/sales") && address("postgres://etl@db/sales"));
        assert!(address("/a:b@c") && address("http://proxy:3128") && address("s3://b/x:y@z") && address("://@:"));
        assert!(!address("postgres://etl:secret@db:5432/sales") && !address("a, amqp://u:p@q"));
        assert!(Inherited::with(vec!["DATABASE_URL".into()]).passes("DATABASE_URL", "postgres://etl:secret@db"));
        // Ours never.
        check(&["GAPLESS_TOKEN", "*"], "GAPLESS_TOKEN", false);
        check(&["*"], "VAULT_TOKEN", true);
    }
}
