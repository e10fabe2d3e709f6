// A real authorization server: npm oidc-provider, with rotation always and access tokens of a few seconds.
//
//   node server.mjs [--ttl SECONDS]
//
// Prints {"listening": "127.0.0.1:PORT"} when it is ready. Besides the provider's own endpoints:
//   POST /test/grants   a grant without a browser: {access_token, refresh_token, expires_in}
//   GET  /test/calls    every token call so far: [{at, grant_type, refresh_token, status, error}]
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import Provider from 'oidc-provider';

const { values } = parseArgs({ options: { ttl: { type: 'string', default: '3600' } } });
const ttl = Number(values.ttl);
const ACCOUNT = 'alice';
const CLIENT = 'app';
const SCOPE = 'openid offline_access';

/** Keeps everything, unlike the built-in one. Find and consume are atomic: nothing here waits. */
class MapAdapter {
  static stored = new Map();

  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    MapAdapter.stored.set(this.key(id), payload);
  }

  async find(id) {
    return MapAdapter.stored.get(this.key(id));
  }

  async findByUid(uid) {
    return this.first((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return this.first((payload) => payload.userCode === userCode);
  }

  async consume(id) {
    const payload = await this.find(id);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    MapAdapter.stored.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of MapAdapter.stored) {
      if (payload.grantId === grantId) MapAdapter.stored.delete(key);
    }
  }

  first(wanted) {
    for (const [key, payload] of MapAdapter.stored) {
      if (key.startsWith(`${this.model}:`) && wanted(payload)) return payload;
    }
    return undefined;
  }
}

const calls = [];

function configure(issuer) {
  const provider = new Provider(issuer, {
    adapter: MapAdapter,
    clients: [
      {
        client_id: CLIENT,
        token_endpoint_auth_method: 'none',
        application_type: 'native',
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
        redirect_uris: ['http://127.0.0.1/callback'],
      },
    ],
    rotateRefreshToken: () => true,
    issueRefreshToken: async () => true,
    ttl: {
      AccessToken: ttl,
      RefreshToken: 86400,
      Grant: 86400,
      Session: 3600,
      Interaction: 600,
      IdToken: 3600,
      DeviceCode: 600,
    },
    features: { devInteractions: { enabled: false }, deviceFlow: { enabled: true } },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    cookies: { keys: ['only for tests'] },
  });
  provider.use(async (ctx, next) => {
    const at = Date.now() / 1000;
    await next();
    if (ctx.oidc?.route !== 'token') return;
    const { grant_type, refresh_token } = ctx.oidc.params ?? {};
    calls.push({ at, grant_type, refresh_token, status: ctx.status, error: ctx.body?.error });
  });
  return provider;
}

async function grantFor(provider) {
  const grant = new provider.Grant({ accountId: ACCOUNT, clientId: CLIENT });
  grant.addOIDCScope(SCOPE);
  return grant.save();
}

/** What a login and a consent would bring, without either. */
async function mint(provider) {
  const client = await provider.Client.find(CLIENT);
  const shared = {
    accountId: ACCOUNT,
    client,
    grantId: await grantFor(provider),
    gty: 'authorization_code',
    scope: SCOPE,
  };
  const access = new provider.AccessToken(shared);
  const refresh = new provider.RefreshToken({ ...shared, rotations: 0 });
  return { access_token: await access.save(), refresh_token: await refresh.save(), expires_in: ttl };
}

/** Says yes to whatever the provider asks the user. */
async function consent(provider, request, response) {
  const result = { login: { accountId: ACCOUNT }, consent: { grantId: await grantFor(provider) } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

function json(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const listening = `127.0.0.1:${server.address().port}`;
  const provider = configure(`http://${listening}`);
  const provide = provider.callback();
  server.on('request', (request, response) => {
    const failed = (error) => json(response, 500, { error: String(error) });
    if (request.url === '/test/grants') {
      mint(provider).then((granted) => json(response, 201, granted), failed);
    } else if (request.url === '/test/calls') {
      json(response, 200, calls);
    } else if (request.url.startsWith('/interaction/')) {
      consent(provider, request, response).catch(failed);
    } else {
      provide(request, response);
    }
  });
  console.log(JSON.stringify({ listening }));
});
