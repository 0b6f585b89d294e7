//! An etcd that lets in only whom it knows: its certificates and users.

use std::{fs, path::Path};

use etcd_client::{Client, ConnectOptions, GetOptions, Permission, PermissionType, TlsOptions};
use gapless_coordinator::store::EtcdAccess;
use gapless_platform::secret::Secret;
use gapless_proto::access::Pems;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::CLUSTER;

pub const USER: &str = "gapless";
pub const PASSWORD: &str = "pass word";
const ROOT_PASSWORD: &str = "root";

/// A folder with an authority, and a certificate of it for etcd and one for those who speak to it.
pub fn certificates() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(params, ca_key);
    fs::write(folder.path().join("ca.pem"), ca.pem()).expect("written");
    for name in ["server", "client"] {
        let mut params = CertificateParams::new(["127.0.0.1".to_string()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        // etcd's own gateway shows the server's certificate to the server.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
    folder
}

/// What `root` shows, and what a coordinator does.
pub fn access(certificates: &Path) -> (EtcdAccess, EtcdAccess) {
    let file = |name: &str| fs::read(certificates.join(name)).expect("readable");
    let pems = Pems {
        ca: Some(file("ca.pem")),
        identity: Some((file("client.pem"), file("client.key"))),
    };
    let tls: Option<TlsOptions> = pems.client_tls();
    let as_user = |name: &str, password: &str| EtcdAccess {
        tls: tls.clone(),
        user: Some((name.to_string(), Secret::new(password))),
    };
    (as_user("root", ROOT_PASSWORD), as_user(USER, PASSWORD))
}

pub fn options(access: &EtcdAccess) -> ConnectOptions {
    let options = match access.tls.clone() {
        Some(tls) => ConnectOptions::new().with_tls(tls),
        None => ConnectOptions::new(),
    };
    match &access.user {
        Some((name, password)) => options.with_user(name, password.expose()),
        None => options,
    }
}

/// What the operating manual says: a user with the keys of one cluster, then authentication is switched on.
pub async fn add_users(endpoints: &[String], access: &EtcdAccess) {
    let nobody = EtcdAccess {
        user: None,
        ..access.clone()
    };
    let mut client = Client::connect(endpoints, Some(options(&nobody)))
        .await
        .expect("reached");
    client.user_add("root", ROOT_PASSWORD, None).await.expect("added");
    client.role_add("root").await.expect("added");
    client.user_grant_role("root", "root").await.expect("granted");
    client.user_add(USER, PASSWORD, None).await.expect("added");
    client.role_add(USER).await.expect("added");
    let keys = Permission::new(PermissionType::Readwrite, format!("/gapless/{CLUSTER}/")).with_prefix();
    client.role_grant_permission(USER, keys).await.expect("granted");
    client.user_grant_role(USER, USER).await.expect("granted");
    client.auth_enable().await.expect("enabled");
    // It is closed to everybody else.
    let nobody = Client::connect(endpoints, Some(options(&nobody)))
        .await
        .expect("reached");
    let refused = nobody
        .kv_client()
        .get("/gapless", Some(GetOptions::new().with_prefix()))
        .await;
    refused.expect_err("nobody is signed in");
}
