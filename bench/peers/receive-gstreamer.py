# receive-gstreamer.py URL SECONDS: plays one WHEP address with GStreamer's webrtcbin, and prints one line of JSON.
import json, sys, time, urllib.parse, urllib.request
import gi
gi.require_version('Gst', '1.0')
gi.require_version('GstWebRTC', '1.0')
gi.require_version('GstSdp', '1.0')
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

url, seconds = sys.argv[1], float(sys.argv[2])
Gst.init(None)
pipeline = Gst.Pipeline.new()
webrtc = Gst.ElementFactory.make('webrtcbin')
webrtc.set_property('bundle-policy', GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
pipeline.add(webrtc)
result = {'version': Gst.version_string().split()[-1], 'connected': False, 'frames': 0, 'sizes': [], 'firstMs': None, 'ended': None}
started = time.monotonic()
location = None

def on_frame(pad, info):
    if result['firstMs'] is None:
        result['firstMs'] = (time.monotonic() - started) * 1000
    result['frames'] += 1
    caps = pad.get_current_caps().get_structure(0)
    size = f"{caps.get_value('width')}x{caps.get_value('height')}"
    if size not in result['sizes']:
        result['sizes'].append(size)
    return Gst.PadProbeReturn.OK

def on_decoded(_, pad):
    sink = Gst.ElementFactory.make('fakesink')
    sink.set_property('sync', False)
    pipeline.add(sink)
    sink.sync_state_with_parent()
    sink.get_static_pad('sink').add_probe(Gst.PadProbeType.BUFFER, on_frame)
    pad.link(sink.get_static_pad('sink'))

def on_pad(_, pad):
    if pad.direction == Gst.PadDirection.SRC:
        decode = Gst.ElementFactory.make('decodebin')
        decode.connect('pad-added', on_decoded)
        pipeline.add(decode)
        decode.sync_state_with_parent()
        pad.link(decode.get_static_pad('sink'))

def on_gathered(*_):
    global location
    if webrtc.get_property('ice-gathering-state') != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        return
    description = webrtc.get_property('local-description')
    offer = description.sdp.as_text()
    response = urllib.request.urlopen(urllib.request.Request(url, data=offer.encode(), headers={'Content-Type': 'application/sdp'}))
    location = response.headers['Location']
    _, sdp = GstSdp.SDPMessage.new_from_text(response.read().decode())
    webrtc.emit('set-remote-description', GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp), Gst.Promise.new())

def on_offer(promise, *_):
    promise.wait()
    # The description belongs to the reply, which must live as long.
    reply = promise.get_reply()
    webrtc.emit('set-local-description', reply.get_value('offer'), Gst.Promise.new())

def on_state(*_):
    if webrtc.get_property('connection-state') == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
        result['connected'] = True

webrtc.connect('pad-added', on_pad)
webrtc.connect('notify::ice-gathering-state', on_gathered)
webrtc.connect('notify::connection-state', on_state)
caps = Gst.Caps.from_string('application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,packetization-mode=(string)1,profile-level-id=(string)42e01f')
pipeline.set_state(Gst.State.PLAYING)
webrtc.emit('add-transceiver', GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, caps)
webrtc.emit('create-offer', None, Gst.Promise.new_with_change_func(on_offer))
loop = GLib.MainLoop()
GLib.timeout_add(int(seconds * 1000), loop.quit)
loop.run()
if location is not None:
    result['ended'] = urllib.request.urlopen(urllib.request.Request(urllib.parse.urljoin(url, location), method='DELETE')).status
print(json.dumps(result), flush=True)
pipeline.set_state(Gst.State.NULL)
