//! H: authentication, as far as it is answered while it is off.

use api::etcdserverpb::{
    AuthStatusRequest, AuthStatusResponse, AuthenticateRequest, AuthenticateResponse,
};
use conform::on_fresh_pair;

use super::*;

const FAILED_PRECONDITION: u16 = 9;

#[test]
fn h8_nobody_is_authenticated_while_that_is_off() {
    on_fresh_pair(&[], async |s| {
        for (name, password) in [("root", "pw"), ("", "")] {
            let request = AuthenticateRequest { name: name.into(), password: password.into() };
            let path = "/etcdserverpb.Auth/Authenticate";
            let answer: Result<AuthenticateResponse, _> = s.call(path, &request).await;
            fails(answer, FAILED_PRECONDITION, "etcdserver: authentication is not enabled");
        }
    });
}

#[test]
fn h_a_fresh_store_says_that_it_is_off_and_at_its_first_revision() {
    on_fresh_pair(&[], async |s| {
        s.set("a", "1").await;
        let path = "/etcdserverpb.Auth/AuthStatus";
        let answer: AuthStatusResponse = s.call(path, &AuthStatusRequest {}).await.unwrap();
        assert_eq!((answer.enabled, answer.auth_revision), (false, 1));
    });
}
