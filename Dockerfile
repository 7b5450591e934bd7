# CPU image. Build: docker build -t turbocast .
# It listens on every address of the container, so it starts only with a server key. Either of these gives it one:
#   KEY=sk_$(openssl rand -hex 32)
#   docker run -e TURBOCAST_AUTH__KEYS="[$KEY]" -p 8080:8080 -p 40000-40010:40000-40010/udp turbocast
# or a folder with a keys file, which `turbocast keys create` in the container fills, and which keeps the signing secret too:
#   docker run -v turbocast-keys:/keys turbocast node bin/turbocast.mjs keys create
#   docker run -v turbocast-keys:/keys -p 8080:8080 -p 40000-40010:40000-40010/udp turbocast
# Then open http://localhost:8080/#token=KEY.
#
# Binaries in the image and their licences (THIRD_PARTY.md has the details):
#   Node.js (MIT)                                      the base image
#   onnxruntime-node: libonnxruntime (MIT)             runs the networks
#   node-av: FFmpeg with x264 and libvpx (GPL-3.0)     live encoder; left out by --build-arg GPL=no
#   @ffmpeg-installer/linux-x64: ffmpeg (GPL)          files and fallback encoder; left out by --build-arg GPL=no
# Without the GPL ones, TURBOCAST_MEDIA__FFMPEG_PATH must name an ffmpeg of your own.
ARG GPL=yes

FROM node:20-bookworm-slim AS build
ARG GPL
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.base.json tsconfig.json ./
COPY scripts scripts
COPY bin bin
COPY src src
COPY client client
COPY test test
COPY bench bench
RUN npm run build
RUN npm prune --omit=dev --no-audit --no-fund \
 && if [ "$GPL" = "no" ]; then rm -rf node_modules/node-av node_modules/@seydx node_modules/@ffmpeg-installer/linux-x64; fi

FROM node:20-bookworm-slim AS run
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist/src dist/src
COPY --from=build /app/dist/client dist/client
COPY package.json README.md LICENSE THIRD_PARTY.md ./
COPY bin bin
COPY scripts/setup.mjs scripts/setup.mjs
COPY config config
COPY models models
RUN mkdir /keys && chown node /keys
USER node
ENV TURBOCAST_SERVER__HOST=0.0.0.0 \
    TURBOCAST_AUTH__KEYS_FILE=/keys/keys.json \
    TURBOCAST_MEDIA__UDP_PORT_MIN=40000 \
    TURBOCAST_MEDIA__UDP_PORT_MAX=40010
EXPOSE 8080/tcp 40000-40010/udp
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["node", "-e", "fetch('http://127.0.0.1:8080/healthz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "bin/turbocast.mjs", "serve"]
