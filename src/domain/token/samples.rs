//! Keys and tokens for the tests of this module. The keys are used nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{Identity, TokenError, TokenOptions, TokenSetupError, TokenVerifier};
use crate::clock::since_epoch;

pub(super) const SECRET: &str = "a secret of these tests, and of nothing else";

pub(super) fn now() -> u64 {
    since_epoch().as_secs()
}

pub(super) fn is_invalid(result: Result<Identity, TokenError>) -> bool {
    matches!(result, Err(TokenError::Invalid(_)))
}

pub(super) fn with_secret() -> TokenOptions {
    TokenOptions {
        secret: Some(SECRET.to_owned()),
        ..Default::default()
    }
}

pub(super) fn verifier(change: impl FnOnce(&mut TokenOptions)) -> TokenVerifier {
    let mut options = with_secret();
    change(&mut options);
    TokenVerifier::new(&options).expect("as the tests need it")
}

pub(super) fn key_set(keys: &[Value]) -> Result<TokenVerifier, TokenSetupError> {
    let folder = tempfile::tempdir().expect("as the tests need it");
    let set = json!({ "keys": keys }).to_string();
    TokenVerifier::new(&TokenOptions {
        jwks_file: Some(file(folder.path(), &set)),
        ..Default::default()
    })
}

pub(super) fn hmac_key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

pub(super) fn private(pem: &str, algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()).expect("as the tests need it"),
        _ => EncodingKey::from_ec_pem(pem.as_bytes()).expect("as the tests need it"),
    }
}

pub(super) fn jwk(kid: &str, pem: &str, algorithm: Algorithm) -> Value {
    let mut jwk =
        Jwk::from_encoding_key(&private(pem, algorithm), algorithm).expect("as the tests need it");
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).expect("as the tests need it")
}

pub(super) fn signed(algorithm: Algorithm, claims: Value) -> String {
    encoded(algorithm, None, &hmac_key(), claims)
}

pub(super) fn encoded(
    algorithm: Algorithm,
    kid: Option<&str>,
    key: &EncodingKey,
    claims: Value,
) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, &claims, key).expect("as the tests need it")
}

/// Writes a key file into `folder`, in place of the last.
pub(super) fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("key");
    fs::write(&path, text).expect("the folder is there");
    path
}

pub(super) const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC5KmPvIrq0TS9X
K8nOx6DiNphtzs9qTIF+RsZAtTpJOtBW7apdCVuVTfz6vKAY7YRc3YHslJ6vDri6
gqXkoSUEU1uSTaq/CkCisBWi2EjIPhmC/NVxKiFpHYj/7JYS/3lLMECIEiY+cGYi
8tvCS+tSjIQauUGRWvf6U8fHXWzDiRtLodfD/Z4eRiPgdX9xjDCMCSFJr5RCJOqL
SGkDQq8lQ6XlTNryTmHgDslHMajefwDYxzfwEfjCIor0KR9FwlH/znZqGmQ8VNM+
oitxaFhAIwFTQFZNz+g1MP3Ad/0VQ8DerkaRpa3QH3dtg19ijSrMFOiSLQIDsxML
9fNfUtRdAgMBAAECggEAUSTyhmmByGHKzTizR5rUNk4Wnohy/PJqDRyW5OSGlnDf
vDiK4Bqpt9RleLwQrNvplYi81yCKKc0ZxyJZ8MdtoWemSYcfvHiRurnPwX1m59nO
9Eg4gU8lNRtsXjsfyVOLpBeRMBBEEjjPiaFEDPGYPqS1f8CPq1NiOKFee0/Fyioc
nea7bz76wrw7POjg3N9uJi8bZ485OTSKw7T+NLeZwGYEXoed4oQ1rPL5tFqk7gzc
ftme2KwLTp5cniqgg1n/6aGDRAUplaOU7UGUO27Sb3UgN5TICrgeV3Le9wWa+gH9
E3KvzfoakfYxzPp8KgfWq+MvOBTYlDgN79qWnN+pQQKBgQDeZ6USl8q+fgrCo9Ej
rtuNZU8dt0sqm+ValoMhYB33QVI0YS1VQR6nFPpNItiy7Fm25NHVlDoXHXS6IxzR
FPEI3DrCA/C/ysVfmZjlYaUZA6du0aKMOGcgjDeW9GT1fv4ZmkJ/byfexBfVJago
/LrKIE//n+Po1zWvYPj/NKMwBwKBgQDVIrWpvJQM0hYIKVoS+U9qe1Li/tSA9rR5
WVGZaebV6V1c8EN+eIxbzJJbj0XEYTq68ehIqsG9dz15kKmgEliZ+KLZkroi2Y3u
bn99tZnDmfkUUYJo9we3+dP6di1lbu+75gJ/G0Wu/jBjpJdjI8D4z8OHAoH/R3Bk
T35kxMz3ewKBgDvfdR4DRS5xKh5qEYRkr3BqRJlAXfjzjRQNDvIuOQL2T9YQDy8z
X7glOpkHd4T7gc9t3Ft+EwFkCaeOilRzKcxz1VGj0+0d/nKVHAcseVC5nhqETxkm
mgS2GsUFuCQq8ucbkylRWE9tROk5wQJ/vx1pA4BSn/1v6mDzXzT9C62DAoGAVTjs
xLMHy9yRPLA0ORQBIkWvjd5xYCPFZCRH0X0b9Pq7/zZ+9moDTY2OFBhEwFJUZn3l
8HB+yWCNbzdd7AiJ7v8RNshJrzeoXedHCR/9HM5LX0l8SLZGGtVFYoewfTePmmVN
KD/ibCdtd9pPQjAAsDx7JVfmXQnWsfVrR6W9g1MCgYA3FR0+0VoL9bE06Dm8jZ1G
7CYCY0Kd8EX4FTe81d4fYBzsDcHmpmb95coNLLrXvPgBxXa9zEax/gs3QQNploQr
pRaNuUsr//zc0uhxH9m/1jTpQGr6ALU0G60ilh3lbcKVPsBQTe+lkQydcXP6cgQw
k2tENuB2w/rebpMB/ImM5Q==
-----END PRIVATE KEY-----";
pub(super) const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuSpj7yK6tE0vVyvJzseg
4jaYbc7PakyBfkbGQLU6STrQVu2qXQlblU38+rygGO2EXN2B7JSerw64uoKl5KEl
BFNbkk2qvwpAorAVothIyD4ZgvzVcSohaR2I/+yWEv95SzBAiBImPnBmIvLbwkvr
UoyEGrlBkVr3+lPHx11sw4kbS6HXw/2eHkYj4HV/cYwwjAkhSa+UQiTqi0hpA0Kv
JUOl5Uza8k5h4A7JRzGo3n8A2Mc38BH4wiKK9CkfRcJR/852ahpkPFTTPqIrcWhY
QCMBU0BWTc/oNTD9wHf9FUPA3q5GkaWt0B93bYNfYo0qzBToki0CA7MTC/XzX1LU
XQIDAQAB
-----END PUBLIC KEY-----";
pub(super) const RSA_SHORT: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCXCpgOv9Z/WvtNOt0WikLh5lBo
IMryiiWy9bMHxsk/y732bNXsrszujOs02hLA/w3ZHOFZ/3xZOeOrlSanAP1PjQvE
42dfpEEEsoVAbc0l4MH26PMd9Ei/k246IgkQd6gL81tG2ri2jQWO/ZyaSsb1kV5m
gIdBy2302l/LNAsV2wIDAQAB
-----END PUBLIC KEY-----";
pub(super) const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglZSVbDk0gL0WpCpS
fajZiCAC7PESW9JFJ/yG15SWoN6hRANCAASvqNZT3dkiUet9d9fEGkms0Hd9cYp2
7uhv5tzBKz2pJEdA8yvXQnL4tVxyZhNPMeRXrWxE5eARuewWx9SRqy7G
-----END PRIVATE KEY-----";
pub(super) const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEr6jWU93ZIlHrfXfXxBpJrNB3fXGK
du7ob+bcwSs9qSRHQPMr10Jy+LVccmYTTzHkV61sROXgEbnsFsfUkasuxg==
-----END PUBLIC KEY-----";
pub(super) const P384_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDC086yVcG90Xa746fzB
cT36r+R0DpIQmYpPvymUCckNOcBhsBC77/CnJXWijEbXxZyhZANiAASo8w7La66a
OCC9IsnliMQ+2WhIm5B4DAsQKh6KBkA4a2RYQKS5A/on4aQfpGF4NgUD/QjzT1P6
TTN2LvFHVZHb+HXMQwgaUt2FAvSVZGnalXt8Xm/sL64lFni2S7PVsSs=
-----END PRIVATE KEY-----";
pub(super) const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEqPMOy2uumjggvSLJ5YjEPtloSJuQeAwL
ECoeigZAOGtkWECkuQP6J+GkH6RheDYFA/0I809T+k0zdi7xR1WR2/h1zEMIGlLd
hQL0lWRp2pV7fF5v7C+uJRZ4tkuz1bEr
-----END PUBLIC KEY-----";
pub(super) const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJo9XE6ruAX0ZMNsFgGiYgNBb2Ym3i/sI7dS+gQ38Iaf
-----END PRIVATE KEY-----";
pub(super) const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAzjTbJZY8PPWDI51LTclwEbLgxk7ruP+eDPza6CWPwmo=
-----END PUBLIC KEY-----";
