"""Stock OAuth clients for Python, each as its users use it, with the hub as their token endpoint.

    stock.py LIBRARY TOKEN_ENDPOINT REFRESH_TOKEN RESOURCE

Holds a stale access token, asks for the resource, and prints what the library holds afterwards:
{"status": 200, "access_token": "...", "refresh_token": "..."}
"""

import json
import os
import sys
import time

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # loopback, plain HTTP
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

STALE = {"access_token": "stale", "token_type": "Bearer", "expires_in": -30, "expires_at": time.time() - 30}


def requests_oauthlib(endpoint, refresh_token, resource):
    from requests_oauthlib import OAuth2Session

    kept = {}
    session = OAuth2Session(
        "stock",
        token={**STALE, "refresh_token": refresh_token},
        auto_refresh_url=endpoint,
        auto_refresh_kwargs={"client_id": "stock"},
        token_updater=kept.update,
    )
    status = session.get(resource).status_code
    return status, kept["access_token"], kept["refresh_token"]


def authlib(endpoint, refresh_token, resource):
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(
        "stock",
        "secret",
        token={**STALE, "refresh_token": refresh_token},
        token_endpoint=endpoint,
    )
    status = session.get(resource).status_code
    return status, session.token["access_token"], session.token["refresh_token"]


def google_auth(endpoint, refresh_token, resource):
    from google.auth.transport.requests import AuthorizedSession
    from google.oauth2.credentials import Credentials

    credentials = Credentials(
        "stale", refresh_token=refresh_token, token_uri=endpoint, client_id="stock", client_secret="secret"
    )
    status = AuthorizedSession(credentials).get(resource).status_code
    return status, credentials.token, credentials.refresh_token


LIBRARIES = {"requests-oauthlib": requests_oauthlib, "authlib": authlib, "google-auth": google_auth}

if __name__ == "__main__":
    library, *arguments = sys.argv[1:]
    status, access_token, refresh_token = LIBRARIES[library](*arguments)
    print(json.dumps({"status": status, "access_token": access_token, "refresh_token": refresh_token}))
