/** A process that starts an engine, says its id, and generates without end until it is killed. */
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { EngineHost } from '../../src/engine/engine-host.js';

const engine = await EngineHost.start({ modelFolder: process.argv[2] ?? '', profile: 'cpu-fp32', threads: 1, log: silentLog, clock: systemClock });
await engine.ready();
const stream = await engine.openStream({ seed: 1, width: engine.model.width, height: engine.model.height });
process.send?.(engine.state.kind === 'ready' ? engine.state.pid : 0);
for (;;) {
	await stream.generate({ prompt: 'a cat', steps: 4, controls: {} }).timings;
}
