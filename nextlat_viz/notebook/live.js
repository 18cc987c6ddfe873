// If a widget took more than two seconds to start, anywidget rejects all later messages to it. Its message handler
// overrides the one inherited from ipywidgets; register the inherited one in its place.
async function listen(model, start = {}) {
  const own = await model.widget_manager.get_model(model.get("_own_id"));
  let inherited = own;
  while (inherited && inherited._handle_comm_msg === own._handle_comm_msg) inherited = Object.getPrototypeOf(inherited);
  if (inherited?._handle_comm_msg) own.comm?.on_msg(message => inherited._handle_comm_msg.call(own, message));
  model.send({kind: "start", ...start});
}
