# receive-aiortc.py URL SECONDS: plays one WHEP address with aiortc, and prints one line of JSON.
import asyncio, json, sys, time, urllib.parse, urllib.request
import aiortc
from aiortc import RTCPeerConnection, RTCSessionDescription

async def main(url, seconds):
    connection = RTCPeerConnection()
    connection.addTransceiver('video', direction='recvonly')
    frames, sizes, first_ms, started = 0, set(), None, time.monotonic()

    async def read(track):
        nonlocal frames, first_ms
        while True:
            try:
                frame = await track.recv()
            except aiortc.mediastreams.MediaStreamError:
                return
            frames += 1
            sizes.add(f'{frame.width}x{frame.height}')
            first_ms = first_ms or (time.monotonic() - started) * 1000

    connection.on('track', lambda track: asyncio.ensure_future(read(track)))
    await connection.setLocalDescription(await connection.createOffer())
    request = urllib.request.Request(url, data=connection.localDescription.sdp.encode(), headers={'Content-Type': 'application/sdp'})
    response = await asyncio.to_thread(urllib.request.urlopen, request)
    await connection.setRemoteDescription(RTCSessionDescription(sdp=response.read().decode(), type='answer'))
    while time.monotonic() - started < seconds:
        await asyncio.sleep(0.1)
    state = connection.connectionState
    end = urllib.request.Request(urllib.parse.urljoin(url, response.headers['Location']), method='DELETE')
    ended = (await asyncio.to_thread(urllib.request.urlopen, end)).status
    await connection.close()
    print(json.dumps({'version': aiortc.__version__, 'connected': state == 'connected', 'frames': frames, 'sizes': sorted(sizes), 'firstMs': first_ms, 'ended': ended}))

asyncio.run(main(sys.argv[1], float(sys.argv[2])))
