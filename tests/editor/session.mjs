// Opens documents in yaml-language-server as an editor does, and prints what it shows of each as JSON.
//
// stdin: {"modules": folder of node_modules, "schemas": {schema: glob}, "documents": {name: text}}. A `|@|` in a text
// is the cursor: it is taken out, and completion is asked for there.
// stdout: {name: {"problems": ["line: message"], "completions": [label]}}
import {spawn} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {createRequire} from 'node:module'
import {join} from 'node:path'

const {modules, schemas, documents} = JSON.parse(readFileSync(0, 'utf8'))
const rpc = createRequire(modules + '/')('vscode-jsonrpc/node')
const yaml = {validate: true, completion: true, schemaStore: {enable: false}, schemas}

const server = spawn(join(modules, '.bin', 'yaml-language-server'), ['--stdio'], {stdio: ['pipe', 'pipe', 'inherit']})
const editor = rpc.createMessageConnection(
  new rpc.StreamMessageReader(server.stdout), new rpc.StreamMessageWriter(server.stdin))
const shown = new Map()
const waiting = new Map()
editor.onNotification('textDocument/publishDiagnostics', ({uri, diagnostics}) => {
  shown.set(uri, diagnostics)
  waiting.get(uri)?.()
})
editor.onRequest('workspace/configuration', ({items}) => items.map(item => (item.section === 'yaml' ? yaml : {})))
editor.onRequest('client/registerCapability', () => null)
editor.listen()
await editor.sendRequest('initialize', {
  processId: process.pid, rootUri: null,
  capabilities: {textDocument: {publishDiagnostics: {}}, workspace: {configuration: true}},
})
editor.sendNotification('initialized', {})
editor.sendNotification('workspace/didChangeConfiguration', {settings: {yaml}})

const found = {}
for (const [name, written] of Object.entries(documents)) {
  const uri = 'file:///policies/' + name
  const cursor = written.indexOf('|@|')
  const text = written.replace('|@|', '')
  const checked = new Promise(resolve => waiting.set(uri, resolve))
  editor.sendNotification('textDocument/didOpen', {textDocument: {uri, languageId: 'yaml', version: 1, text}})
  await checked
  const problems = shown.get(uri).map(each => `${each.range.start.line + 1}: ${each.message}`)
  let completions = []
  if (cursor >= 0) {
    const before = text.slice(0, cursor).split('\n')
    const position = {line: before.length - 1, character: before.at(-1).length}
    const answer = await editor.sendRequest('textDocument/completion', {textDocument: {uri}, position})
    completions = (answer.items ?? answer).map(item => item.label)
  }
  found[name] = {problems, completions}
}
process.stdout.write(JSON.stringify(found))
server.kill()
process.exit(0)
